"""The tests of echoserver; this file lets ``python -m unittest`` find them."""
