"""Who may do what: keys, tenants, scopes, limits. Knows no transport."""
