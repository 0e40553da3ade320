"""Speech in as it comes, a talking head out: sessions."""
