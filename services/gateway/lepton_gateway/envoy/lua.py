"""The few decisions that Envoy has no setting for, as its Lua filters."""

from __future__ import annotations

__all__ = [
    "JSON_ERRORS",
    "MODEL_HEADER",
    "MODEL_NAME",
]

# The name, a slash, and the version where the message names one.
MODEL_HEADER = "lepton-model"

# The model's name is field 1 of every message of the protocol that names one, and so its first
# bytes: after gRPC's flag and length (5 bytes) comes the tag 10, a varint length and the text.
# The version, where one is named, is field 2 (tag 18) and follows it. Both are short enough for a
# length of one byte. What cannot be read has no name, and the fallback says so.
MODEL_NAME = f"""
local HEAD = 5 + 2 + 127 + 2 + 127

local function text_at(head, at, tag)
  local found, length = head:byte(at, at + 1)
  if found ~= tag or length == nil or length > 127 then return "", at end
  local stop = at + 2 + length
  return head:sub(at + 2, stop - 1), stop
end

local function read(body)
  if body == nil then return "", "" end
  local head = body:getBytes(0, math.min(body:length(), HEAD))
  local flag = head:byte(1)
  if flag ~= 0 then return "", "", flag end
  local name, rest = text_at(head, 6, 10)
  return name, text_at(head, rest, 18), flag
end

function envoy_on_request(handle)
  local name, version, flag = read(handle:body())
  if flag == 1 then
    handle:respond({{[":status"] = "501"}}, "a compressed message needs the header grpc-encoding")
    return
  end
  if not name:find("^[a-z0-9_-]+$") then
    handle:headers():remove("{MODEL_HEADER}")
  else
    if not version:find("^[0-9]*$") then version = "" end
    handle:headers():replace("{MODEL_HEADER}", name .. "/" .. version)
  end
  handle:clearRouteCache()
end
"""

# The transcoder answers errors as google.rpc.Status in JSON. Every other error of this address
# has its text under "error", so these get it there too.
JSON_ERRORS = """
function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status") or "")
  if status == nil or status < 400 then return end
  local buffer = handle:body()
  if buffer == nil or buffer:length() == 0 then return end
  local text, count = buffer:getBytes(0, buffer:length()):gsub(
    '^{"code":(%d+),"message":', '{"code":%1,"error":', 1)
  if count == 0 then return end
  handle:headers():replace("content-length", tostring(buffer:setBytes(text)))
end
"""
