"""Black-box conformance suite: rules H1 to H9 that every host obeys, over DDS against a fake robot.

``pytest tests/host_conformance --host embedded`` runs it against one host of `hosts.HOSTS`; without the
option the embedded host is taken.
"""
