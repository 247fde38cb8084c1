"""Pages for people: server-rendered, usable by keyboard and without scripts where that is possible.

They call the same functions as the REST routes, with the same token, so that a page can show and do
nothing that the API would not.
"""
