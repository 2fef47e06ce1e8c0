#!/usr/bin/env lua5.1
-- A billing stub: says whether an account may call, and writes down what calls cost.
--
--     billing.lua HOST PORT ACCOUNTS LEDGER
--
-- ACCOUNTS has a line for each account, its name and its credit in units: "alice 20". LEDGER grows by a line for each
-- call, "KEY ACCOUNT SECONDS UNITS", which is on the disk before the charge is confirmed. A charge that comes again
-- is known by its key. Kamailio keeps what is not confirmed, so this program may end at any moment. What calls that
-- are still going on will cost it doesn't reserve: that is left to who makes a billing of it.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path

local bus = require("bus")
local signal = require("posix.signal")
local stdio = require("posix.stdio")
local unistd = require("posix.unistd")

local UNIT_SECONDS = 60 -- begun, a unit is to be paid
local WAIT_MS = 500
local ASK_AGAIN_S = 60 -- for charges that have not been confirmed

local function log(...)
    io.stderr:write(string.format(...), "\n")
end

local Ledger = {}
Ledger.__index = Ledger

-- What is in the ledger so far is taken from the credit. A line that was being written at a crash is made to be none;
-- its charge comes again.
local function open_ledger(accounts, path)
    local self = setmetatable({ credit = {}, charged = {} }, Ledger)
    for line in io.lines(accounts) do
        local account, units = line:match("^(%S+) (%d+)$")
        if account then self.credit[account] = tonumber(units) end
    end
    self.file = assert(io.open(path, "a+"))
    local text = self.file:read("*a")
    for key, account, units in text:gmatch("(%S+) (%S+) %d+ (%d+)\n") do self:note(key, account, tonumber(units)) end
    if text:find("[^\n]$") then self.file:write(" torn\n") end
    return self
end

function Ledger:note(key, account, units)
    self.charged[key] = true
    self.credit[account] = (self.credit[account] or 0) - units
end

function Ledger:charge(key, account, seconds)
    if self.charged[key] then return log("charge %s: known already", key) end
    local units = math.max(1, math.ceil(seconds / UNIT_SECONDS))
    assert(self.file:write(string.format("%s %s %d %d\n", key, account, seconds, units)))
    assert(self.file:flush())
    assert(unistd.fsync(stdio.fileno(self.file)))
    self:note(key, account, units)
    log("charge %s: %d units from %s, who has %d left", key, units, account, self.credit[account])
end

-- The answer to an event, or nil.
local function answer(ledger, event)
    local index, label, account = event:match("^ask (%d+) (%d+) (%S+)$")
    if index then
        local verdict = (ledger.credit[account] or 0) > 0 and "allow" or "deny"
        log("%s: %s", account, verdict)
        return string.format("%s %s %s", verdict, index, label)
    end
    local key, who, seconds = event:match("^charge (%S+) (%S+) (%d+)$")
    if key then
        ledger:charge(key, who, tonumber(seconds))
        return "charged " .. key
    end
    log("not understood: %q", event:sub(1, 200))
end

local function main(host, port, accounts, path)
    local stopping = false
    for _, number in ipairs({ signal.SIGTERM, signal.SIGINT }) do
        signal.signal(number, function() stopping = true end)
    end
    local ledger, kamailio = open_ledger(accounts, path), bus.new(host, port, "billing", log)
    local ask_at = os.time() + ASK_AGAIN_S
    while not stopping do
        for _, event in ipairs(kamailio:receive(WAIT_MS)) do
            local said = answer(ledger, event)
            if said then kamailio:send(said) end
        end
        if os.time() >= ask_at then
            kamailio:send("billing")
            ask_at = os.time() + ASK_AGAIN_S
        end
    end
    kamailio:close()
    ledger.file:close()
    log("stopped")
end

if #arg ~= 4 then
    io.stderr:write("Usage: billing.lua HOST PORT ACCOUNTS LEDGER\n")
    os.exit(2)
end
main(unpack(arg))
