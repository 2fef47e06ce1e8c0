"""The routing script of the soak.

Each request of sipp makes events. An event is

    MD5 LENGTH KIND SOURCE NUMBER TURN REST

where MD5 and LENGTH are those of what follows them, SOURCE names the process of Kamailio that issued it (second of
Kamailio's start, pid), NUMBER counts the events of this kind that this process has issued, from 1 and without a gap, and
TURN those of all kinds. A number that evapid's queue had no room for is used again. So a client can tell by itself
whether it has got all of them, once, whole and in order.

    R      relay, for every client
    M0..2  multicast, for a group
    U      unicast, for an answerer
    A      asks an answerer to resume a request, which is suspended until then
    W      unicast by connection-new: tells a client its index, and lets it know its group
    K      unicast: acknowledges a client's message

The answer of each request says in X-Said which events its route has issued with success. A W or a K that the queue had no
room for is said in Kamailio's log (UNSAID, with the client's index and port, and the number of the message)."""

GROUPS = 3

PROCESS = """
route[PROCESS] {
    if ($var(me) == 0) {
        $var(me) = "" + $Tb + "." + $pp;
        $var(turn) = 0;
    }
}
route[SEAL] {
    $var(rest) = $var(kind) + " " + $var(me) + " " + $var(number) + " " + ($var(turn) + 1) + " " + $var(rest);
    $var(event) = $(var(rest){s.md5}) + " " + $(var(rest){s.len}) + " " + $var(rest);
}
route[SAID] {
    $var(turn) = $var(turn) + 1;
    $var(said) = $var(said) + " " + $var(kind) + ":" + $var(me) + ":" + $var(number);
}
"""

# One for each kind: its counter and how it is sent.
ISSUE = """
route[ISSUE_{kind}] {{
    $var(kind) = "{kind}";
    $var(number) = $var(n_{kind}) + 1;
    route(SEAL);
    if ({call}) {{
        $var(n_{kind}) = $var(number);
        route(SAID);
        return 1;
    }}
    return -1;
}}
"""

# An answer may come while the route that asked is still running, so all it needs is set before.
ASYNC = """
route[ISSUE_A] {
    $var(kind) = "A";
    $var(number) = $var(n_A) + 1;
    $var(rest) = "" + $T(id_index) + " " + $T(id_label);
    route(SEAL);
    $avp(said) = $var(said) + " A:" + $var(me) + ":" + $var(number);
    if (evapi_async_unicast($var(event), "answer")) {
        $var(n_A) = $var(number);
        $var(turn) = $var(turn) + 1;
        return 1;
    }
    return -1;
}
"""

REQUESTS = """
route[TEST] {
    route(PROCESS);
    $var(said) = "";
    if (!t_newtran()) exit;
    if ($rU == "mark") {
        $var(rest) = "mark " + $rb;
        route(ISSUE_R);
        route(REPLY);
    }
    $var(rest) = $rb;
    if ($rU == "large" || $rU == "flood") {
        $var(rest) = $rb + $rb + $rb + $rb + $rb + $rb + $rb + $rb;
        $var(rest) = $var(rest) + $var(rest) + $var(rest) + $var(rest);
    }
    if ($rU == "burst" || $rU == "flood") {
        $var(many) = $var(rest);
        $var(i) = 0;
        while ($var(i) < 20 || ($rU == "flood" && $var(i) < 80)) {
            $var(rest) = $var(many);
            route(ISSUE_R);
            $var(i) = $var(i) + 1;
        }
    } else if ($hdr(X-Group) == "0") {
        route(ISSUE_M0);
    } else if ($hdr(X-Group) == "1") {
        route(ISSUE_M1);
    } else if ($hdr(X-Group) == "2") {
        route(ISSUE_M2);
    } else if ($hdr(X-Group) == "u") {
        route(ISSUE_U);
    } else {
        route(ISSUE_R);
    }
    if ($rU == "async") {
        t_on_failure("UNANSWERED");
        if (route(ISSUE_A)) exit;
        append_to_reply("X-Said:$var(said)\\r\\n");
        t_reply("503", "Nobody there");
        exit;
    }
    route(REPLY);
}
route[REPLY] {
    append_to_reply("X-Said:$var(said)\\r\\n");
    t_reply("200", "OK");
    exit;
}
route[ANSWERED] {
    append_to_reply("X-Said:$avp(said)\\r\\n");
    t_reply("200", "OK");
    exit;
}
failure_route[UNANSWERED] {
    t_reply("504", "Nobody answered");
}
"""

# An application that is restarted is known by its address: it gets the tag that is kept for it.
#
# A client keeps its tag when another Kamailio announces it: to take it away for a moment would cost it events. One that
# begins with w is of a connection-new route that a dying Kamailio has not finished. An acknowledgement for which the queue has
# no room is noted in the log.
EVENTS = """
event_route[evapi:connection-new] {
    route(PROCESS);
    xlog("L_INFO", "NEW $evapi(conidx) [$evapi(tag)]\\n");
    if ($evapi(tag) != $null && !($evapi(tag) =~ "^w")) return;
    $var(tag) = "w" + $evapi(conidx);
    evapi_set_tag("$var(tag)");
    $var(rest) = "" + $evapi(conidx);
    if (!route(ISSUE_W)) xlog("L_INFO", "UNSAID W $evapi(conidx) $evapi(srcport) 0\\n");
    $var(tag) = "g" + ($evapi(conidx) mod 3);
    if ($evapi(srcaddr) =~ "^127\\.0\\.1\\.") $var(tag) = "k" + $evapi(srcaddr);
    evapi_set_tag("$var(tag)");
}
event_route[evapi:message-received] {
    route(PROCESS);
    $var(word) = $(evapi(msg){s.select,0,:});
    if ($var(word) == "C") {
        $var(index) = $(evapi(msg){s.select,1,:}{s.int});
        $var(label) = $(evapi(msg){s.select,2,:}{s.int});
        t_continue("$var(index)", "$var(label)", "ANSWERED");
        return;
    }
    $var(tag) = "c" + $evapi(conidx);
    if ($var(word) == "own") evapi_set_tag("$var(tag)");
    if ($var(word) == "answer") {
        evapi_set_tag("answer");
        return;
    }
    $var(rest) = "" + $evapi(conidx) + " " + $(evapi(msg){s.select,1,:}) + " " + $(evapi(msg){s.md5});
    if (!route(ISSUE_K)) xlog("L_INFO", "UNSAID K $evapi(conidx) $evapi(srcport) $(evapi(msg){s.select,1,:})\\n");
}
"""


def script():
    calls = {"R": "evapi_relay($var(event))", "U": 'evapi_unicast($var(event), "answer")',
             "W": 'evapi_unicast($var(event), "$var(tag)")', "K": 'evapi_unicast($var(event), "$var(tag)")'}
    calls |= {f"M{group}": f'evapi_multicast($var(event), "g{group}")' for group in range(GROUPS)}
    issue = [ISSUE.format(kind=kind, call=call) for kind, call in calls.items()]
    return "".join([PROCESS, *issue, ASYNC, REQUESTS, EVENTS])
