"""A small sample org that serves Salesforce's API and whose schema can be changed while it runs."""
