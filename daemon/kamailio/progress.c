/* Reading ahead, and asking to be woken. */
#include "kamailio/progress.h"

void progress_catch_up(struct kamailio *kamailio)
{
    if (kamailio->attachment.intake != NULL)
        intake_read_batch(kamailio->attachment.intake);
}

struct kamailio_mark progress_mark(const struct kamailio *kamailio)
{
    struct intake *intake = kamailio->attachment.intake;
    return (struct kamailio_mark){ .ring = kamailio->attachment.rings, .end = intake != NULL ? intake_end(intake) : 0 };
}

struct kamailio_mark progress_catch_up_to(struct kamailio *kamailio)
{
    const struct kamailio_mark mark = progress_mark(kamailio);
    progress_catch_up(kamailio);
    return mark;
}

bool progress_has_read(const struct kamailio *kamailio, struct kamailio_mark mark)
{
    const struct intake *intake = kamailio->attachment.intake;
    return intake == NULL || mark.ring != kamailio->attachment.rings || intake_has_read(intake, mark.end);
}

bool progress_is_stuck(const struct kamailio *kamailio)
{
    return kamailio->attachment.intake != NULL && intake_is_stuck(kamailio->attachment.intake);
}

void progress_skip_stuck(struct kamailio *kamailio)
{
    if (progress_is_stuck(kamailio))
        intake_skip_hole(kamailio->attachment.intake);
}

bool progress_can_go_on(const struct kamailio *kamailio, struct kamailio_mark mark)
{
    return progress_has_read(kamailio, mark) || progress_is_stuck(kamailio);
}

void progress_await_done(struct kamailio *kamailio, const struct worker *worker)
{
    struct intake *intake = kamailio->attachment.intake;
    if (intake == NULL)
        return; /* the intake was not taken over: the link is about to end */
    struct ring_worker *slot = &intake->ring.header->workers[worker->index];
    atomic_store_explicit(&slot->awaited, worker->last_sequence, memory_order_seq_cst);
    intake_tick(intake); /* the route may have ended already without waking us */
}

uint64_t progress_begun(const struct kamailio *kamailio, const struct worker *worker)
{
    const struct ring_worker *slot = &kamailio->attachment.intake->ring.header->workers[worker->index];
    return atomic_load_explicit(&slot->started, memory_order_acquire);
}

void progress_begin(struct kamailio *kamailio, uint16_t index)
{
    struct ring_worker *slot = &kamailio->attachment.intake->ring.header->workers[index];
    atomic_store(&slot->started, 0);
    atomic_store(&slot->awaited, 0);
}
