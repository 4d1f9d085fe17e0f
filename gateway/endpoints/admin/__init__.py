"""
The admin API: what operators see and change, on listeners of its own.

    errors       what an operator's client reads when something is refused
    values       JSON and query strings as dataclasses, each mistake with its field
    operations   one row a path: handler, what it takes, what it answers
    openapi      the same rows as a machine-readable description
    access       who asks: unix socket, token, page; Host and Origin
    application  the aiohttp application of the admin listeners

Every other file answers a family of paths. The state is read from the parts that have
it (admission, accounts, records, ledger); nothing is kept twice.
"""
