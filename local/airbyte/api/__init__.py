"""The HTTP front end of the local Airbyte: the part of its Configuration API that AAM calls.

`dispatch.answer` turns a request into a response, as one release words it. The state comes from a
back end (`backend.Backend`): connector processes in `make up`, what a test has set in tests. One
module per resource holds the endpoints, `reads` the representations, `defaults` the defaults.
"""
