"""What every trainer shares: loader, objective, engine, checkpoint, averaged weights. No spec; imports no area."""
