"""A small Salesforce org over Salesforce's own API, whose schema can be changed while it runs."""
