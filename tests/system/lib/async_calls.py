"""A script that suspends calls, and goes on with each when a client answers its event.

A client answers an event "INDEX:LABEL:WORD" with "INDEX:LABEL:CODE:WORD"; the resumed route answers the request with
that code, and WORD as its reason. Requests carry WORD in X-Word."""

RESUME = """
event_route[evapi:message-received] {
    $var(first) = $(evapi(msg){s.select,0,:});
    if ($var(first) == "tag") {
        evapi_set_tag("$(evapi(msg){s.select,1,:})");
        exit;
    }
    $var(index) = $(evapi(msg){s.select,0,:}{s.int});
    $var(label) = $(evapi(msg){s.select,1,:}{s.int});
    $var(what) = $(evapi(msg){s.select,2,:});
    $var(word) = $(evapi(msg){s.select,3,:});
    t_continue("$var(index)", "$var(label)", "RESUMED");
}
route[RESUMED] {
    if ($var(what) == "relay") {
        $du = "sip:127.0.0.1:" + $hdr(X-Callee);
        t_relay();
        exit;
    }
    $var(code) = $(var(what){s.int});
    append_to_reply("X-Word: $hdr(X-Word)\\r\\nX-From: $evapi(srcport)\\r\\n");
    t_reply("$var(code)", "$var(word)");
}
"""

NATIVE = """
route[TEST] {
    $var(rc) = 0;
    switch ($rU) {
        case "relay":
            evapi_async_relay("$T(id_index):$T(id_label):$hdr(X-Word)"); $var(rc) = $rc; break;
        case "multicast":
            evapi_async_multicast("$T(id_index):$T(id_label):$hdr(X-Word)", "blue"); $var(rc) = $rc; break;
        case "unicast":
            evapi_async_unicast("$T(id_index):$T(id_label):$hdr(X-Word)", "$hdr(X-Tag)"); $var(rc) = $rc; break;
        case "created-before":
            t_newtran();
            evapi_async_relay("$T(id_index):$T(id_label):$hdr(X-Word)"); $var(rc) = $rc; break;
        case "large":
            $var(big) = "0123456789abcdef0123456789abcdef";
            $var(i) = 0;
            while ($var(i) < $(hdr(X-Times){s.int})) {
                $var(big) = $var(big) + $var(big);
                $var(i) = $var(i) + 1;
            }
            evapi_async_relay("$T(id_index):$T(id_label):$hdr(X-Word):$var(big)"); $var(rc) = $rc;
            $var(big) = "";
            break;
        case "fill":
            evapi_relay("$hdr(X-Word)"); $var(rc) = $rc;
            append_to_reply("X-Rc: $var(rc)\\r\\n");
            sl_send_reply("200", "OK");
            exit;
        case "sync":
            evapi_relay("a plain event"); $var(rc) = $rc;
            sl_send_reply("200", "OK");
            exit;
    }
    if ($var(rc) > 0) exit;
    append_to_reply("X-Rc: $var(rc)\\r\\n");
    if ($hdr(X-Callee) != $null) {
        $du = "sip:127.0.0.1:" + $hdr(X-Callee);
        t_relay();
        exit;
    }
    if (!t_newtran()) xlog("L_NOTICE", "the transaction is there\\n");
    t_reply("480", "Nobody answers");
    exit;
}
""" + RESUME
