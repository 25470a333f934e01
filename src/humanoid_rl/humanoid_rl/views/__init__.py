"""The browser view of the live robot, and the browser that tests and pictures of it are made with."""
