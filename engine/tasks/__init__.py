"""Task bodies: the only place where bytes meet mathematics. A body is made once per worker and reused."""
