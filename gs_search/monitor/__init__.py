"""How far a study is, what it has brought, and what to do when that is nothing."""
