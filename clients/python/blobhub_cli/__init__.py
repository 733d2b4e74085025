"""`blobhub`, the command line: a thin layer over the client and the stubs.

A noun of the contract is a module in `nouns`; its commands ask the server and hand the answer to `Output`. What all of them
do alike is in `command`: options, the connection, errors and exit codes.
"""
