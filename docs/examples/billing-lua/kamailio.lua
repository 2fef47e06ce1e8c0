-- Prepaid calls over KEMI. Kamailio and billing.lua speak in words with a space between them.
--
--   to billing     ask INDEX LABEL ACCOUNT          may this account call? INDEX and LABEL name the suspended INVITE
--                  charge KEY ACCOUNT SECONDS       a call has ended
--   from billing   billing                          here I am; what have I not confirmed?
--                  allow INDEX LABEL
--                  deny INDEX LABEL
--                  charged KEY                      is written down, and need not be sent again

local DECISION_MS = 2000 -- how long billing may think

-- Who pays. What a caller wrote may hold any byte; as a part of a URL it is one word.
local function account()
    return KSR.pv.gete("$(fU{s.urlencode.param})")
end

-- Send the charges that are not confirmed, all of them.
local function send_charges()
    KSR.htable.sht_iterator_start("each", "charges")
    while KSR.htable.sht_iterator_next("each") > 0 do
        KSR.evapi.relay_multicast(KSR.pv.gete("$shtitval(each)"), "billing")
    end
    KSR.htable.sht_iterator_end("each")
end

-- Suspend the INVITE and ask. Without an answer there is no call: nobody would pay for it.
local function ask()
    KSR.tm.t_set_fr(DECISION_MS, DECISION_MS)
    KSR.tm.t_on_failure("unanswered")
    if KSR.tm.t_newtran() ~= 1 then return end -- a retransmission
    local index, label = KSR.pv.get("$T(id_index)"), KSR.pv.get("$T(id_label)")
    if KSR.evapi.async_unicast(string.format("ask %d %d %s", index, label, account()), "billing") < 0 then
        KSR.tm.t_reply(503, "No Billing")
    end
end

-- tm answers a suspended call with a 408 of its own when billing has not answered in time, and that ends here.
function unanswered()
    if KSR.tm.t_is_canceled() > 0 then return 1 end
    KSR.warn("call " .. KSR.pv.gete("$ci") .. ": billing does not answer\n")
    KSR.tm.t_reply(503, "No Billing")
    return 1
end

-- The suspended INVITE goes on, in the process that got the answer.
function allowed()
    KSR.tm.t_on_failure("0")
    KSR.tm.t_reset_fr()
    KSR.rr.record_route()
    KSR.dialog.dlg_manage()
    KSR.pv.sets("$dlg_var(account)", account())
    KSR.pv.sets("$du", KSR.pv.gete("$def(GATEWAY)"))
    if KSR.tm.t_relay() < 0 then KSR.tm.t_reply(500, "Relaying Failed") end
end

function denied()
    KSR.tm.t_reply(402, "Payment Required")
end

local function within_dialog(method)
    if KSR.rr.loose_route() > 0 then
        KSR.tm.t_relay()
    elseif method == "ACK" then
        if KSR.tm.t_check_trans() > 0 then KSR.tm.t_relay() end
    else
        KSR.sl.sl_send_reply(404, "Not Here")
    end
end

function ksr_request_route()
    local method = KSR.pv.get("$rm")
    if KSR.maxfwd.process_maxfwd(10) < 0 then
        KSR.sl.sl_send_reply(483, "Too Many Hops")
    elseif method == "CANCEL" then
        if KSR.tm.t_check_trans() > 0 then KSR.tm.t_relay() end
    elseif KSR.siputils.has_totag() > 0 then
        within_dialog(method)
    elseif method == "INVITE" then
        ask()
    elseif method == "OPTIONS" then
        KSR.sl.sl_send_reply(200, "OK")
    elseif method ~= "ACK" then
        KSR.sl.sl_send_reply(405, "Method Not Allowed")
    end
    return 1
end

-- A call that was answered has ended, by BYE or by a timeout of the dialog: it is charged, and kept until that is
-- confirmed.
function dialog_event(name)
    if name ~= "dialog:end" then return 1 end
    local key = KSR.pv.get("$(dlg(callid){s.md5})")
    local charge = string.format("charge %s %s %d", key, KSR.pv.gete("$dlg_var(account)"), KSR.pv.get("$DLG_lifetime"))
    KSR.htable.sht_sets("charges", key, charge)
    KSR.evapi.relay_multicast(charge, "billing")
    return 1
end

local orders = {}

function orders.billing()
    KSR.evapi.set_tag("billing")
    send_charges()
end

function orders.charged(key)
    KSR.htable.sht_rm("charges", key)
end

local function resume(index, label, route)
    if KSR.tmx.t_continue(tonumber(index) or 0, tonumber(label) or 0, route) < 0 then
        KSR.warn("billing's answer comes too late\n") -- or the caller has hung up
    end
end

function orders.allow(index, label) resume(index, label, "allowed") end
function orders.deny(index, label) resume(index, label, "denied") end

function evapi_event(name)
    local from = KSR.pv.gete("$evapi(srcaddr)")
    -- Only from this host. evapid's own "access" says that too, and before Kamailio hears of it.
    if name == "evapi:connection-new" and from ~= "127.0.0.1" and from ~= "::1" then KSR.evapi.close() end
    if name ~= "evapi:message-received" then return 1 end
    local order, first, second = KSR.pv.gete("$evapi(msg)"):match("^(%l+) ?(%w*) ?(%w*)$")
    if orders[order] then
        orders[order](first, second)
    else
        KSR.warn(from .. " says what is not understood: " .. KSR.pv.gete("$evapi(msg)") .. "\n")
    end
    return 1
end
