/* Writing listeners, and reading them. */
#include "client/listener_state.h"

#include <utlist.h>

#include "base/state.h"

void listeners_save(const struct listeners *all, struct state_out *out)
{
    const struct listener *listener = NULL;
    DL_FOREACH(all->first, listener)
    {
        state_put_record(out, "listener");
        state_put_text(out, "name", listener->name);
        state_put(out, "source", (uint64_t)listener->source);
        state_put(out, "closed", listener->state == LISTENER_CLOSED);
        state_put(out, "framing", (uint64_t)listener->limits.framing);
        state_put(out, "max-clients", listener->max_clients);
        state_put(out, "accepted", listener->accepted);
        state_put_record(out, "refused");
        for (int refusal = 0; refusal < REFUSALS; refusal++)
            state_put(out, refusal_name((enum refusal)refusal), listener_refusals(listener, (enum refusal)refusal));
        state_put_end(out);
        state_put_end(out);
    }
    state_put(out, "refused-before", all->refused_before);
}

bool listeners_load(struct listeners *all, struct state_in *in, const struct client_limits *limits,
                    const struct access *access, bool module_may, struct listener **module)
{
    while (state_get_next(in, "listener")) {
        char name[ADDRESS_TEXT];
        wire_text_copy(name, sizeof(name), state_get_bytes(in, "name"));
        const bool of_module = state_get(in, "source", LISTENER_CONFIG) == LISTENER_MODULE;
        const bool goes_on = state_get(in, "closed", 0) == 0 && of_module && module_may;
        struct client_limits theirs = *limits;
        theirs.framing = state_get(in, "framing", theirs.framing) == FRAMING_RAW ? FRAMING_RAW : FRAMING_NETSTRING;
        const uint32_t max_clients = (uint32_t)state_get(in, "max-clients", 1);
        struct listener *listener = listener_named(all, name);
        if (listener == NULL) {
            listener = listener_remember(all, name, &theirs, access);
            if (listener == NULL)
                return state_fail(in);
            if (!of_module)
                listener_set(listener, &theirs, access, 0, LISTENER_CONFIG);
            if (goes_on) {
                *module = listener;
                listener_reopen(listener, max_clients);
            }
        }
        const uint64_t accepted = state_get(in, "accepted", 0);
        uint64_t refused[REFUSALS];
        state_get_record(in, "refused");
        for (int refusal = 0; refusal < REFUSALS; refusal++)
            refused[refusal] = state_get(in, refusal_name((enum refusal)refusal), 0);
        state_get_end(in);
        listener_add_past(listener, accepted, refused);
        state_get_end(in);
    }
    listeners_add_refused(all, state_get(in, "refused-before", 0));
    return !in->at.failed;
}
