/* Reading a description, and copying with it. */
#include "client/layout.h"

#include <string.h>

static bool field_is_good(const struct layout_file *file, const struct layout_field *field)
{
    const uint64_t room = field->part == LAYOUT_HEADER ? file->header_bytes : file->slot_bytes;
    const bool number = field->size == 1 || field->size == 2 || field->size == 4 || field->size == 8;
    return field->part <= LAYOUT_SLOT && memchr(field->name, '\0', LAYOUT_NAME) != NULL &&
           (uint64_t)field->offset + field->size <= room && (field->kind != LAYOUT_NUMBER || number);
}

bool layout_read(struct layout *layout, const void *memory, uint64_t size)
{
    const struct layout_file *file = memory;
    layout->file = *file;
    layout->fields = (const void *)((const char *)memory + file->fields_at);
    if (file->field_bytes != sizeof(struct layout_field) || file->fields_at % _Alignof(struct layout_field) != 0 ||
        file->header_bytes > size ||
        file->fields_at + (uint64_t)file->field_count * file->field_bytes > file->header_bytes ||
        file->segment_slots == 0 || (uint64_t)file->slot_bytes * file->segment_slots > file->segment_bytes)
        return false;
    for (uint32_t i = 0; i < file->field_count; i++)
        if (!field_is_good(file, &layout->fields[i]))
            return false;
    return true;
}

bool layout_is_same(const struct layout *a, const struct layout *b)
{
    return a->file.header_bytes == b->file.header_bytes && a->file.slot_bytes == b->file.slot_bytes &&
           a->file.segment_slots == b->file.segment_slots && a->file.segment_bytes == b->file.segment_bytes &&
           a->file.field_count == b->file.field_count &&
           memcmp(a->fields, b->fields, a->file.field_count * sizeof(struct layout_field)) == 0;
}

const struct layout_field *layout_find(const struct layout *layout, enum layout_part part, const char *name)
{
    for (uint32_t i = 0; i < layout->file.field_count; i++)
        if (layout->fields[i].part == part && strcmp(layout->fields[i].name, name) == 0)
            return &layout->fields[i];
    return NULL;
}

static uint64_t read_number(const void *at, uint32_t size)
{
    uint8_t one = 0;
    uint16_t two = 0;
    uint32_t four = 0;
    uint64_t eight = 0;
    switch (size) {
    case 1: memcpy(&one, at, 1); return one;
    case 2: memcpy(&two, at, 2); return two;
    case 4: memcpy(&four, at, 4); return four;
    default: memcpy(&eight, at, 8); return eight;
    }
}

static void write_number(void *at, uint32_t size, uint64_t value)
{
    const uint8_t one = (uint8_t)value;
    const uint16_t two = (uint16_t)value;
    const uint32_t four = (uint32_t)value;
    switch (size) {
    case 1: memcpy(at, &one, 1); break;
    case 2: memcpy(at, &two, 2); break;
    case 4: memcpy(at, &four, 4); break;
    default: memcpy(at, &value, 8); break;
    }
}

bool layout_copy(const struct layout_field *to, void *part, const struct layout_field *from, const void *from_part)
{
    char *at = (char *)part + to->offset;
    const char *source = (const char *)from_part + from->offset;
    if (to->kind == LAYOUT_NUMBER && from->kind == LAYOUT_NUMBER) {
        const uint64_t value = read_number(source, from->size);
        write_number(at, to->size, value);
        return read_number(at, to->size) == value;
    }
    if (to->kind == LAYOUT_BYTES && from->kind == LAYOUT_BYTES)
        memcpy(at, source, to->size < from->size ? to->size : from->size);
    return to->kind == from->kind;
}
