"""HTTP/2 (RFC 9113) and gRPC for the servers that speak HTTP/1.1: the same exchanges, many at once.

A connection of `lepton_runtime.http` that begins with HTTP/2's preface goes on here, if its server
was given `speak`. Whatever a client sends is limited before it is kept, by the same `HttpLimits`.
"""
