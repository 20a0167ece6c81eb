"""Write structured six-part captions of the kept clips."""
