/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/nlmsg.h"

#include <stdlib.h>

void nlw_done(NlWriter *w)
{
        free(w->data);
        free(w->offsets);
        *w = (NlWriter){};
}

/* Room for `size` more bytes, zeroed; NULL once anything went wrong. */
static uint8_t *nlw_reserve(NlWriter *w, size_t size)
{
        if (w->error < 0)
                return NULL;
        if (size > w->allocated - w->size) {
                size_t want = w->allocated > 0 ? w->allocated * 2 : 4096;
                while (want - w->size < size)
                        want *= 2;
                uint8_t *p = realloc(w->data, want);
                if (!p) {
                        w->error = -ENOMEM;
                        return NULL;
                }
                w->data = p;
                w->allocated = want;
        }
        uint8_t *p = w->data + w->size;
        memset(p, 0, size);
        w->size += size;
        return p;
}

void nlw_begin(NlWriter *w, uint16_t type, uint16_t flags, const void *header, size_t header_size)
{
        if (w->n_messages == w->n_offsets_allocated) {
                size_t n = w->n_offsets_allocated > 0 ? w->n_offsets_allocated * 2 : 64;
                size_t *p = reallocarray(w->offsets, n, sizeof(*p));
                if (!p) {
                        w->error = -ENOMEM;
                        return;
                }
                w->offsets = p;
                w->n_offsets_allocated = n;
        }
        size_t start = w->size;
        uint8_t *p = nlw_reserve(w, NLMSG_HDRLEN + NLMSG_ALIGN(header_size));
        if (!p)
                return;
        struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = (uint16_t) (flags | NLM_F_REQUEST)};
        memcpy(p, &h, sizeof(h));
        memcpy(p + NLMSG_HDRLEN, header, header_size);
        w->message = start;
        w->offsets[w->n_messages++] = start;
}

void nlw_end(NlWriter *w)
{
        if (w->error < 0)
                return;
        uint32_t len = (uint32_t) (w->size - w->message);
        memcpy(w->data + w->message + offsetof(struct nlmsghdr, nlmsg_len), &len, sizeof(len));
}

void nlw_put(NlWriter *w, uint16_t type, const void *data, size_t size)
{
        if (size > UINT16_MAX - NLA_HDRLEN) {
                w->error = w->error < 0 ? w->error : -EMSGSIZE;
                return;
        }
        uint8_t *p = nlw_reserve(w, (size_t) NLA_HDRLEN + NLA_ALIGN(size));
        if (!p)
                return;
        struct nlattr a = {.nla_type = type, .nla_len = (uint16_t) (NLA_HDRLEN + size)};
        memcpy(p, &a, sizeof(a));
        if (size > 0)
                memcpy(p + NLA_HDRLEN, data, size);
}

void nlw_put_u8(NlWriter *w, uint16_t type, uint8_t v)
{
        nlw_put(w, type, &v, sizeof(v));
}

void nlw_put_u32(NlWriter *w, uint16_t type, uint32_t v)
{
        nlw_put(w, type, &v, sizeof(v));
}

void nlw_put_u64(NlWriter *w, uint16_t type, uint64_t v)
{
        nlw_put(w, type, &v, sizeof(v));
}

void nlw_put_string(NlWriter *w, uint16_t type, const char *s)
{
        nlw_put(w, type, s, strlen(s) + 1);
}

size_t nlw_nest(NlWriter *w, uint16_t type)
{
        size_t start = w->size;

        nlw_put(w, type, NULL, 0);
        return start;
}

void nlw_nest_end(NlWriter *w, size_t nest)
{
        if (w->error < 0)
                return;
        size_t len = w->size - nest;
        if (len > UINT16_MAX) {
                w->error = -EMSGSIZE;
                return;
        }
        uint16_t v = (uint16_t) len;
        memcpy(w->data + nest + offsetof(struct nlattr, nla_len), &v, sizeof(v));
}

void nlw_raw(NlWriter *w, const void *data, size_t size)
{
        uint8_t *p = nlw_reserve(w, NLA_ALIGN(size));
        if (p)
                memcpy(p, data, size);
}

int nlw_finish(const NlWriter *w, TbError **err)
{
        if (w->error == -ENOMEM)
                return tb_error_oom(err);
        if (w->error < 0)
                return tb_error_set_errno(err, TB_ERROR_BUG, w->error, "cannot encode a netlink message");
        return 0;
}

bool nl_iter_next(NlIter *i, NlAttr *ret)
{
        struct nlattr a;

        if (i->left < sizeof(a))
                return false;
        memcpy(&a, i->p, sizeof(a));
        if (a.nla_len < NLA_HDRLEN || a.nla_len > i->left) {
                i->left = 0;
                return false;
        }
        *ret = (NlAttr){
                .type = a.nla_type & NLA_TYPE_MASK,
                .data = i->p + NLA_HDRLEN,
                .size = (size_t) a.nla_len - NLA_HDRLEN,
        };
        size_t step = NLA_ALIGN(a.nla_len);
        if (step > i->left)
                step = i->left;
        i->p += step;
        i->left -= step;
        return true;
}

const struct nlmsghdr *nl_next_message(NlIter *i)
{
        const struct nlmsghdr *h = (const void *) i->p;

        if (i->left < sizeof(*h) || h->nlmsg_len < sizeof(*h) || h->nlmsg_len > i->left) {
                i->left = 0;
                return NULL;
        }
        size_t step = NLMSG_ALIGN((size_t) h->nlmsg_len);
        if (step > i->left)
                step = i->left;
        i->p += step;
        i->left -= step;
        return h;
}

const void *nl_message_header(const struct nlmsghdr *h, size_t header_size)
{
        return h->nlmsg_len >= NLMSG_HDRLEN + header_size ? (const uint8_t *) h + NLMSG_HDRLEN : NULL;
}

NlIter nl_message_attributes(const struct nlmsghdr *h, size_t header_size)
{
        size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_size);

        if (h->nlmsg_len <= skip)
                return nl_iter(NULL, 0);
        return nl_iter((const uint8_t *) h + skip, h->nlmsg_len - skip);
}

bool nl_attr_u32(const NlAttr *a, uint32_t *ret)
{
        if (a->size < sizeof(*ret))
                return false;
        memcpy(ret, a->data, sizeof(*ret));
        return true;
}

bool nl_attr_u64(const NlAttr *a, uint64_t *ret)
{
        if (a->size < sizeof(*ret))
                return false;
        memcpy(ret, a->data, sizeof(*ret));
        return true;
}

bool nl_attr_struct(const NlAttr *a, void *ret, size_t size)
{
        if (a->size == 0)
                return false;
        memset(ret, 0, size);
        memcpy(ret, a->data, a->size < size ? a->size : size);
        return true;
}

void nl_attr_string(const NlAttr *a, char *ret, size_t size)
{
        size_t n = a->size > 0 ? strnlen((const char *) a->data, a->size) : 0;

        if (n > size - 1)
                n = size - 1;
        if (n > 0)
                memcpy(ret, a->data, n);
        ret[n] = '\0';
}
