-- Netstrings: a length in decimal, a colon, that many bytes, a comma. Lua's strings are bytes, and so are payloads.

local netstring = {}

netstring.MAX_PAYLOAD = 4 * 1024 * 1024 -- as large as events are with the module's default queue_size

function netstring.encode(payload)
    return #payload .. ":" .. payload .. ","
end

local Decoder = {}
Decoder.__index = Decoder

-- Finds frames in a stream whose pieces end anywhere. It keeps one unfinished frame at most, and what came with it.
function netstring.decoder(limit)
    return setmetatable({ limit = limit or netstring.MAX_PAYLOAD, pieces = {}, bytes = 0, wanted = 1 }, Decoder)
end

-- The payloads that piece completes, in a list; and what is wrong where the stream is no netstring, for nothing
-- behind that place can be known.
function Decoder:push(piece)
    table.insert(self.pieces, piece)
    self.bytes = self.bytes + #piece
    local payloads = {}
    if self.bytes < self.wanted then return payloads end -- not put together for each piece of a large frame

    local buffer, at, reason = table.concat(self.pieces), 1, nil
    repeat
        local payload, after = self:take(buffer, at)
        if payload then
            table.insert(payloads, payload)
            at = after
        else
            reason = after
        end
    until not payload
    self.pieces, self.bytes = { buffer:sub(at) }, #buffer - at + 1
    return payloads, reason
end

-- The payload at buffer's byte at, and where it goes on; or nil, and what is wrong if something is.
function Decoder:take(buffer, at)
    local digits, colon = buffer:match("^(%d*)(:?)", at)
    if #digits > #tostring(self.limit) or tonumber(digits or "") and tonumber(digits) > self.limit then
        return nil, "a frame of more than " .. self.limit .. " bytes"
    end
    if digits:find("^0%d") or (colon == "" and at + #digits <= #buffer) or (colon ~= "" and digits == "") then
        return nil, "no length"
    end
    self.wanted = 1
    if colon == "" then return nil end
    local first = at + #digits + 1
    local comma = first + tonumber(digits)
    if #buffer < comma then
        self.wanted = comma - at + 1
        return nil
    end
    if buffer:sub(comma, comma) ~= "," then return nil, "no comma after the payload" end
    return buffer:sub(first, comma - 1), comma + 1
end

return netstring
