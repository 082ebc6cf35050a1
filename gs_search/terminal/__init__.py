"""What verbs print: tables of status, front, pick, retrainings and exported files."""
