"""The pure part: told what happened, answers what to do. No clock, no client library, no `await`, no log call."""
