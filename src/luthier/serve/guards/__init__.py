"""What every request passes before a route sees it, whatever the route: each guard is an ASGI app around the next one.

observation   an id for each request, headers that keep browsers strict, the log, and an answer for what is unexpected
hosts         the address that was asked is ours, and no foreign page asks
keys          a key that is known; all but the few open paths need one
bodies        kind and size of a body, in time, and of JSON that it says one thing only
"""
