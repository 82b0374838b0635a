"""The tools that a gateway has by itself: files of the workspace, commands, pages of the web, attachments.

Everything that a model or a flow says is taken for hostile here: paths are opened name by name, addresses are judged
before they are connected to, and what is worked on by a foreign pattern or grammar is so in a process that is killed
when its time is up.
"""
