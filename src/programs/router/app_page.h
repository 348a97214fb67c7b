/*
 * What the pages of the admin listener are made of: facts that only the control thread knows, and the page
 * itself on another thread. `arg` is the struct app.
 */
#ifndef PROGRAMS_ROUTER_APP_PAGE_H
#define PROGRAMS_ROUTER_APP_PAGE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"
#include "router/admin.h"

void *app_page_facts(void *arg, const struct admin_reader *reader);
int app_page(void *arg, void *facts, struct span target, struct buf *out);
uint64_t app_page_version(void *arg);

#endif
