"""deploy.propose: what a person has to know before a version becomes the champion."""
