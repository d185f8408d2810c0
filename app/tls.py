"""How the database shows who it is."""

import ssl

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERIFYING = ("verify-ca", "verify-full")


def make_ssl(mode: str | None, authorities: str) -> ssl.SSLContext | str | None:
    """What the driver is to be given as `ssl`: where the server has to be verified, a context that does, against the
    given authorities (a file in PEM, or its text) or else those that the system trusts.

    Raises OSError for what cannot be read, `ssl.SSLError` among them.
    """
    if mode not in VERIFYING:
        return mode
    # As libpq does, and not `create_default_context`, whose strictness many an authority made by hand does not meet.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = mode == "verify-full"
    context.set_alpn_protocols(["postgresql"])
    if authorities.lstrip().startswith("-----BEGIN"):
        context.load_verify_locations(cadata=authorities.replace("\\n", "\n"))
    elif authorities:
        context.load_verify_locations(cafile=authorities)
    else:
        context.load_default_certs()
    return context
