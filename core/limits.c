#include "core/limits.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

const struct limits limits_default = {
        .text = MIB(1),
        .header_block = MIB(1),
        .header_field = KIB(128),
        .header_fields = 10000,
        .depth = 64,
        .parts = 10000,
        .boundary = 256,
        .addresses = 10000,
        .parameters = 256,
        .sections = 128,
        .words = 2048,
        .opened_depth = 3,
        .opened_parts = 10000,
        .opened_bytes = MIB(1024),
        .opened_ratio = 100,
        .opened_whole = MIB(32),
        .message = 0,
        .memory_message = MIB(1),
        .saves = 1000,
        .deliveries = 32,
        .forwards = 4,
        .received = 50,
        .cpu = 5,
        .heap = MIB(64),
        .pipe_output = MIB(1),
        .pipe_time = 60,
        .queue = MIB(16),
        .batch_messages = 512,
        .batch_bytes = MIB(16),
        .batch_ms = 100,
};
