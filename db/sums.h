// The checksums of the pages of one main file. Connections, captures and Go share them; whoever
// keeps a pointer holds a reference.
#ifndef RQLITED_SUMS_H
#define RQLITED_SUMS_H

#include <stddef.h>
#include <stdint.h>

struct db_sums;

enum { DB_SUMS_GROUP = 128 }; // sums that are written together

// db_sums_new returns an object with no pages and one reference, or NULL without memory. The page
// size may be 0 for a file that is still empty.
struct db_sums *db_sums_new(uint32_t page_size);
void db_sums_ref(struct db_sums *s);
void db_sums_unref(struct db_sums *s);

// Of a file that is not in use yet. They return 0 without memory.
int db_sums_load(struct db_sums *s, uint32_t pgno, const unsigned char *from, uint32_t n); // sums as on disk
int db_sums_compute(struct db_sums *s, uint32_t pgno, const unsigned char *pages, uint32_t n);

// db_sums_check says whether a page is what it should be, and remembers if it is.
int db_sums_check(struct db_sums *s, uint32_t pgno, const void *page);

// db_sums_take copies the next run of sums that the disk does not have yet, from page *pgno on and at
// most max, in the form they have on disk. They count as being there from then on. It sets *pgno to the
// first and returns how many; 0: there are no more.
uint32_t db_sums_take(struct db_sums *s, uint32_t *pgno, unsigned char *to, uint32_t max);
void db_sums_take_all(struct db_sums *s); // the disk has none
int db_sums_changed(struct db_sums *s);   // the disk lacks some

uint64_t db_sums_digest(struct db_sums *s);
uint32_t db_sums_pages(struct db_sums *s);
uint32_t *db_sums_damaged(struct db_sums *s); // the first page found damaged, or 0; to be read atomically

// For the VFS. What changes something wants the lock to be held.
void db_sums_lock(struct db_sums *s);
void db_sums_unlock(struct db_sums *s);
int db_sums_seen(struct db_sums *s, uint32_t pgno);
uint32_t db_sums_page_size(struct db_sums *s);
void db_sums_set_page_size(struct db_sums *s, uint32_t n);
int db_sums_put(struct db_sums *s, uint32_t pgno, const void *page); // pages left out before it hold zeros
int db_sums_grow(struct db_sums *s, uint32_t pages);                 // by pages of zeros
void db_sums_shrink(struct db_sums *s, uint32_t pages);
void db_sums_set_damaged(struct db_sums *s, uint32_t pgno);

uint32_t db_crc32c(uint32_t crc, const void *p, size_t n, int plain);

#endif
