-- A connection to evapid that comes back whenever it is lost.

local netstring = require("netstring")
local errno = require("posix.errno")
local poll = require("posix.poll")
local signal = require("posix.signal")
local socket = require("posix.sys.socket")
local time = require("posix.time")
local unistd = require("posix.unistd")

local FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 100, 10000
local SEND_S = 5 -- who takes nothing for so long is not there
local READ_BYTES = 65536

signal.signal(signal.SIGPIPE, signal.SIG_IGN) -- a lost connection is an error of send, not the end
math.randomseed(os.time() + unistd.getpid())

local Bus = {}
Bus.__index = Bus

local function now_ms()
    local now = time.clock_gettime(time.CLOCK_MONOTONIC)
    return now.tv_sec * 1000 + math.floor(now.tv_nsec / 1000000)
end

-- Each connection is a new client to Kamailio, without a tag: hello is sent first on each, and says what is wanted.
local function new(host, port, hello, log)
    return setmetatable({ host = host, port = port, hello = hello, log = log, failures = 0, next_try = 0 }, Bus)
end

function Bus:lost(reason)
    self:close()
    -- A connection that is accepted and closed at once (max_clients, say) is a failure as well.
    local lasted = now_ms() - self.since
    self.failures = lasted > LONGEST_PAUSE_MS and 1 or self.failures + 1
    local pause = math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ^ (self.failures - 1))
    pause = math.floor(pause * (0.5 + math.random() / 2)) -- not all clients at the same moment
    self.next_try = now_ms() + pause
    self.log("no connection: %s; again in %d ms", reason, pause)
end

-- A connected socket, or nil and the reason.
local function connected(host, port)
    local addresses, reason = socket.getaddrinfo(host, port, { socktype = socket.SOCK_STREAM })
    for _, address in ipairs(addresses or {}) do
        local fd = socket.socket(address.family, socket.SOCK_STREAM, 0)
        socket.setsockopt(fd, socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_S, 0) -- of connect, too: socket(7)
        socket.setsockopt(fd, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        local done, why = socket.connect(fd, address)
        if done then return fd end
        unistd.close(fd)
        reason = why
    end
    return nil, reason
end

function Bus:connect()
    self.since = now_ms()
    local fd, reason = connected(self.host, self.port)
    if not fd then return self:lost(reason) end
    self.fd, self.decoder = fd, netstring.decoder()
    self.log("connected to %s:%s", self.host, self.port)
    self:send(self.hello)
end

-- Send a message. It is lost when there is no connection; what it confirms comes again then.
function Bus:send(message)
    local rest = netstring.encode(message)
    while self.fd and rest ~= "" do
        local sent, reason = socket.send(self.fd, rest)
        if sent then
            rest = rest:sub(sent + 1)
        else
            self:lost(reason)
        end
    end
end

function Bus:read()
    local piece, reason, number = socket.recv(self.fd, READ_BYTES)
    if not piece and number == errno.EINTR then return {} end
    if not piece or piece == "" then
        self:lost(reason or "closed by evapid")
        return {}
    end
    local payloads, wrong = self.decoder:push(piece)
    if wrong then self:lost(wrong) end
    return payloads
end

-- The events that come within wait_ms: those of one read, or none. Connects when there is no connection. A signal
-- that comes just before a wait does not end it (Lua handles it behind the system call), so waits are to be short.
function Bus:receive(wait_ms)
    if not self.fd and now_ms() >= self.next_try then self:connect() end
    if not self.fd then
        poll.poll({}, math.max(0, math.min(wait_ms, self.next_try - now_ms())))
        return {}
    end
    if poll.rpoll(self.fd, wait_ms) == 1 then return self:read() end
    return {}
end

function Bus:close()
    if self.fd then unistd.close(self.fd) end
    self.fd = nil
end

return { new = new }
