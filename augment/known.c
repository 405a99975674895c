/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/known.h"
#include "common/cleanup.h"
#include "common/strv.h"

typedef struct ImagePlace {
        TbDigest digest; /* unset = empty */
        KnownImage image;
} ImagePlace;

typedef struct HitPlace {
        TbDigest request; /* of request_digest(); unset = empty */
        KnownHit hit;
} HitPlace;

struct AugmentKnown {
        ImagePlace images[KNOWN_IMAGES];
        HitPlace hits[KNOWN_HITS];
};

int augment_known_new(AugmentKnown **ret, TbError **err)
{
        AugmentKnown *k = calloc(1, sizeof(*k)); /* pages that nothing is noted in take no memory */

        if (!k)
                return tb_error_oom(err);
        *ret = k;
        return 0;
}

AugmentKnown *augment_known_free(AugmentKnown *k)
{
        free(k);
        return NULL;
}

/* The digits of a digest are as good as any hash of it. */
static size_t place_of(const TbDigest *digest, size_t n)
{
        char digits[9];

        memcpy(digits, tb_digest_hex(digest), 8);
        digits[8] = 0;
        return (size_t) strtoul(digits, NULL, 16) % n;
}

bool augment_known_image(const AugmentKnown *k, const TbDigest *digest, KnownImage *ret)
{
        const ImagePlace *p;

        if (!k || !tb_digest_is_set(digest))
                return false;
        p = &k->images[place_of(digest, KNOWN_IMAGES)];
        if (!tb_digest_equal(&p->digest, digest))
                return false;
        *ret = p->image;
        return true;
}

void augment_known_note_image(AugmentKnown *k, const TbDigest *digest, const KnownImage *image)
{
        if (k && tb_digest_is_set(digest))
                k->images[place_of(digest, KNOWN_IMAGES)] = (ImagePlace){*digest, *image};
}

/* All that decides which names are looked for. No part has a line break: they were checked. */
static bool request_digest(const AugmentRequest *r, TbDigest *ret)
{
        _cleanup_free_ char *text = tb_asprintf("%s\n%s\n%s\n%d %d\n%s%s\n%s", r->registry, r->image,
                r->platform, r->all_platforms, r->update, r->project ? "project " : "", r->project ?: "",
                augment_level_to_string(r->level));

        return text && tb_digest_of(text, strlen(text), ret, NULL) >= 0;
}

bool augment_known_hit(const AugmentKnown *k, const AugmentRequest *request, KnownHit *ret)
{
        const HitPlace *p;
        TbDigest digest;

        if (!k || !request_digest(request, &digest))
                return false;
        p = &k->hits[place_of(&digest, KNOWN_HITS)];
        if (!tb_digest_equal(&p->request, &digest))
                return false;
        *ret = p->hit;
        return true;
}

void augment_known_note_hit(AugmentKnown *k, const AugmentRequest *request, const KnownHit *hit)
{
        TbDigest digest;

        if (k && request_digest(request, &digest))
                k->hits[place_of(&digest, KNOWN_HITS)] = (HitPlace){digest, *hit};
}
