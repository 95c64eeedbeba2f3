"""ENGINEs that people put together; test_composed.py uses them."""
