#include "core/digest.h"
#include "core/mem.h"
#include "tests/unit/test.h"

static struct str hex(const uint8_t hash[32], char out[65])
{
        digest_hex(hash, out);
        return str_of(out);
}

/* FIPS 180-2, appendix B. */
TEST(vectors)
{
        uint8_t hash[32];
        char out[65];

        CHECK(digest_of(STR_NONE, hash));
        CHECK_STR(hex(hash, out), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        CHECK(digest_of(STR("abc"), hash));
        CHECK_STR(hex(hash, out), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(in_pieces_with_a_look_between)
{
        struct digest *d = digest_new();
        uint8_t hash[32];
        char out[65];

        NEED(d);
        CHECK(digest_peek(d, hash));
        CHECK_STR(hex(hash, out), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        digest_add(d, "a", 1);
        digest_add(d, NULL, 0);
        CHECK(digest_peek(d, hash));
        CHECK_STR(hex(hash, out), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        digest_add(d, "bc", 2);
        digest_end(d, hash);
        CHECK_STR(hex(hash, out), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        digest_free(digest_new());
        digest_free(NULL);
}

TEST(without_memory)
{
        mem_fail_at(1);
        CHECK(digest_new() == NULL);
        mem_fail_at(0);
}

TEST_MAIN
