/*
 * Intrusive circular lists: a call or connection can leave its list at any time without a search.
 *
 * A list is a struct link of its own, pointing to itself when empty; so does an element that is in no list.
 */
#ifndef LEGACY_LINK_H
#define LEGACY_LINK_H

#include <stdbool.h>
#include <stddef.h>

struct link {
	struct link *next, *prev;
};

#define LINK_OWNER(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void link_init(struct link *l)
{
	l->next = l->prev = l;
}

static inline bool link_alone(const struct link *l)
{
	return l->next == l;
}

static inline void link_remove(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static inline void link_append(struct link *list, struct link *l)
{
	l->prev = list->prev;
	l->next = list;
	list->prev->next = l;
	list->prev = l;
}

static inline void link_prepend(struct link *list, struct link *l)
{
	link_append(list->next, l);
}

/* Moves all elements to `to`, an empty list. */
static inline void link_move(struct link *list, struct link *to)
{
	link_append(list, to);
	link_remove(list);
}

#endif
