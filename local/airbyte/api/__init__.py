"""The HTTP face of the local Airbyte: the part of its Configuration API that AAM calls.

`face.answer` turns a request into a response, in the words of one release. What there is, it asks a
back end (`backend.Backend`): connector processes in `make up`, what a test has set in tests. One
module per resource holds the endpoints, `reads` the representations, `defaults` the defaults.
"""
