"""Strong, plain methods that published systems are compared with."""
