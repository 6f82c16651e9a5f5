"""What AAM decides, as pure functions: values in, values out, nothing read and nothing written."""
