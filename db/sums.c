#include "sums.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// ---- CRC-32C ----

static uint32_t crc_table[8][256];

static void fill_table(void) {
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++) {
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		}
		crc_table[0][i] = c;
	}
	for (int k = 1; k < 8; k++) {
		for (int i = 0; i < 256; i++) {
			uint32_t c = crc_table[k - 1][i];
			crc_table[k][i] = c >> 8 ^ crc_table[0][c & 0xff];
		}
	}
}

static uint32_t crc_byte(uint32_t c, unsigned char b) { return c >> 8 ^ crc_table[0][(c ^ b) & 0xff]; }

static uint32_t crc_plain(uint32_t c, const unsigned char *p, size_t n) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, fill_table);
	for (; n >= 8; n -= 8, p += 8) { // eight bytes at a time, a table for the distance of each from the end
		c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
		c = crc_table[7][c & 0xff] ^ crc_table[6][c >> 8 & 0xff] ^ crc_table[5][c >> 16 & 0xff] ^ crc_table[4][c >> 24] ^
			crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]] ^ crc_table[0][p[7]];
	}
	for (; n > 0; n--) {
		c = crc_byte(c, *p++);
	}
	return c;
}

#if defined(__x86_64__)
#define HAVE_CRC() __builtin_cpu_supports("sse4.2")
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t c, const unsigned char *p, size_t n) {
	uint64_t x = c, v;
	for (; n >= 8; n -= 8, p += 8) {
		memcpy(&v, p, 8);
		x = __builtin_ia32_crc32di(x, v);
	}
	for (c = (uint32_t)x; n > 0; n--) {
		c = __builtin_ia32_crc32qi(c, *p++);
	}
	return c;
}
#else
#define HAVE_CRC() 0
#define crc_hardware crc_plain
#endif

// db_crc32c goes on with a CRC over n more bytes; plain asks for the way without special
// instructions, which a test compares with the other.
uint32_t db_crc32c(uint32_t crc, const void *p, size_t n, int plain) {
	return ~(!plain && HAVE_CRC() ? crc_hardware : crc_plain)(~crc, p, n);
}

// sum_of covers the number of a page, big-endian, and the page, as the records of snapshots do.
static uint32_t sum_of(uint32_t pgno, const void *page, uint32_t size) {
	unsigned char n[4] = {pgno >> 24, pgno >> 16 & 0xff, pgno >> 8 & 0xff, pgno & 0xff};
	return db_crc32c(db_crc32c(0, n, sizeof n, 0), page, size, 0);
}

// ---- The set ----

// The sums of a big file lie in chunks, which are made when they are needed and never move, so that
// readers need no lock.
enum { CHUNK_PAGES = 1 << 16, CHUNKS = 1 << 16, DIRTY_PAGES = DB_SUMS_GROUP, MAX_PAGE_SIZE = 65536 };

typedef struct {
	uint32_t sum[CHUNK_PAGES];
	uint64_t seen[CHUNK_PAGES / 64]; // pages read and found good since start, or written
	uint8_t dirty[CHUNK_PAGES / DIRTY_PAGES]; // groups with sums that the disk does not have
} chunk;

struct db_sums {
	int refs;
	pthread_mutex_t mu; // held while the main file is written, and by what must not meet that
	uint32_t page_size, pages; // changed under mu
	uint64_t digest; // under mu
	uint32_t damaged;
	uint32_t used; // chunks that were ever needed; under mu
	chunk *chunks[CHUNKS];
};

struct db_sums *db_sums_new(uint32_t page_size) {
	struct db_sums *s = calloc(1, sizeof *s);
	if (s == NULL) {
		return NULL;
	}
	if (pthread_mutex_init(&s->mu, NULL) != 0) {
		free(s);
		return NULL;
	}
	s->refs = 1;
	s->page_size = page_size;
	return s;
}

void db_sums_ref(struct db_sums *s) { __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED); }

void db_sums_unref(struct db_sums *s) {
	if (s == NULL || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0) {
		return;
	}
	for (uint32_t i = 0; i < s->used; i++) {
		free(s->chunks[i]);
	}
	pthread_mutex_destroy(&s->mu);
	free(s);
}

static chunk *chunk_of(struct db_sums *s, uint32_t pgno) {
	return __atomic_load_n(&s->chunks[pgno / CHUNK_PAGES], __ATOMIC_ACQUIRE);
}

// mix spreads a sum over 64 bits, differently for each page.
static uint64_t mix(uint32_t pgno, uint32_t sum) {
	uint64_t z = ((uint64_t)pgno << 32 | sum) + 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

// set notes the sum of a page. Pages come in order, so that a new one is next to the last. The
// caller holds mu.
static int set(struct db_sums *s, uint32_t pgno, uint32_t sum, int seen, int dirty) {
	chunk *c = chunk_of(s, pgno);
	if (c == NULL) {
		if ((c = calloc(1, sizeof *c)) == NULL) {
			return 0;
		}
		__atomic_store_n(&s->chunks[pgno / CHUNK_PAGES], c, __ATOMIC_RELEASE);
		s->used = pgno / CHUNK_PAGES + 1;
	}
	uint32_t i = pgno % CHUNK_PAGES;
	if (pgno <= s->pages) {
		s->digest -= mix(pgno, c->sum[i]);
	}
	s->digest += mix(pgno, sum);
	__atomic_store_n(&c->sum[i], sum, __ATOMIC_RELAXED);
	uint64_t bit = (uint64_t)1 << i % 64;
	if (seen) {
		__atomic_or_fetch(&c->seen[i / 64], bit, __ATOMIC_RELAXED);
	} else {
		__atomic_and_fetch(&c->seen[i / 64], ~bit, __ATOMIC_RELAXED);
	}
	c->dirty[i / DIRTY_PAGES] |= dirty;
	if (pgno > s->pages) {
		__atomic_store_n(&s->pages, pgno, __ATOMIC_RELEASE);
	}
	return 1;
}

int db_sums_load(struct db_sums *s, uint32_t pgno, const unsigned char *from, uint32_t n) {
	for (; n > 0; n--, pgno++, from += 4) {
		uint32_t sum = (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
		if (!set(s, pgno, sum, 0, 0)) {
			return 0;
		}
	}
	return 1;
}

int db_sums_compute(struct db_sums *s, uint32_t pgno, const unsigned char *pages, uint32_t n) {
	for (; n > 0; n--, pgno++, pages += s->page_size) {
		if (!set(s, pgno, sum_of(pgno, pages, s->page_size), 0, 1)) {
			return 0;
		}
	}
	return 1;
}

int db_sums_check(struct db_sums *s, uint32_t pgno, const void *page) {
	chunk *c = chunk_of(s, pgno);
	uint32_t i = pgno % CHUNK_PAGES;
	if (c == NULL || pgno > db_sums_pages(s) || __atomic_load_n(&c->sum[i], __ATOMIC_RELAXED) != sum_of(pgno, page, s->page_size)) {
		return 0;
	}
	__atomic_or_fetch(&c->seen[i / 64], (uint64_t)1 << i % 64, __ATOMIC_RELAXED);
	return 1;
}

int db_sums_seen(struct db_sums *s, uint32_t pgno) {
	chunk *c = chunk_of(s, pgno);
	uint32_t i = pgno % CHUNK_PAGES;
	return c != NULL && __atomic_load_n(&c->seen[i / 64], __ATOMIC_RELAXED) >> i % 64 & 1;
}

uint32_t db_sums_pages(struct db_sums *s) { return __atomic_load_n(&s->pages, __ATOMIC_ACQUIRE); }

uint32_t *db_sums_damaged(struct db_sums *s) { return &s->damaged; }

uint64_t db_sums_digest(struct db_sums *s) {
	pthread_mutex_lock(&s->mu);
	uint64_t d = s->digest;
	pthread_mutex_unlock(&s->mu);
	return d;
}

uint32_t db_sums_take(struct db_sums *s, uint32_t *pgno, unsigned char *to, uint32_t max) {
	uint32_t n = 0;
	pthread_mutex_lock(&s->mu);
	for (uint32_t p = *pgno; p <= s->pages && n + DIRTY_PAGES <= max;) {
		chunk *c = chunk_of(s, p);
		uint32_t i = p % CHUNK_PAGES, end = (p / DIRTY_PAGES + 1) * DIRTY_PAGES;
		if (c == NULL || !c->dirty[i / DIRTY_PAGES]) {
			if (n > 0) {
				break;
			}
			p = end;
			continue;
		}
		if (n == 0) {
			*pgno = p;
		}
		c->dirty[i / DIRTY_PAGES] = 0;
		for (; p < end && p <= s->pages; p++, n++, to += 4) {
			uint32_t sum = c->sum[p % CHUNK_PAGES];
			to[0] = sum & 0xff, to[1] = sum >> 8 & 0xff, to[2] = sum >> 16 & 0xff, to[3] = sum >> 24;
		}
	}
	pthread_mutex_unlock(&s->mu);
	return n;
}

int db_sums_changed(struct db_sums *s) {
	int changed = 0;
	pthread_mutex_lock(&s->mu);
	for (uint32_t i = 0; i < s->used; i++) {
		if (s->chunks[i] != NULL) {
			changed |= memchr(s->chunks[i]->dirty, 1, sizeof s->chunks[i]->dirty) != NULL;
		}
	}
	pthread_mutex_unlock(&s->mu);
	return changed;
}

void db_sums_take_all(struct db_sums *s) {
	pthread_mutex_lock(&s->mu);
	for (uint32_t i = 0; i < s->used; i++) {
		if (s->chunks[i] != NULL) {
			memset(s->chunks[i]->dirty, 1, sizeof s->chunks[i]->dirty);
		}
	}
	pthread_mutex_unlock(&s->mu);
}

// ---- What the VFS does ----

void db_sums_lock(struct db_sums *s) { pthread_mutex_lock(&s->mu); }
void db_sums_unlock(struct db_sums *s) { pthread_mutex_unlock(&s->mu); }

uint32_t db_sums_page_size(struct db_sums *s) { return __atomic_load_n(&s->page_size, __ATOMIC_ACQUIRE); }

void db_sums_set_page_size(struct db_sums *s, uint32_t n) { __atomic_store_n(&s->page_size, n, __ATOMIC_RELEASE); }

int db_sums_grow(struct db_sums *s, uint32_t pages) {
	static const unsigned char zeros[MAX_PAGE_SIZE];
	for (uint32_t pgno = s->pages + 1; pgno <= pages && pgno != 0; pgno++) {
		if (!set(s, pgno, sum_of(pgno, zeros, s->page_size), 1, 1)) {
			return 0;
		}
	}
	return 1;
}

int db_sums_put(struct db_sums *s, uint32_t pgno, const void *page) {
	return db_sums_grow(s, pgno - 1) && set(s, pgno, sum_of(pgno, page, s->page_size), 1, 1);
}

void db_sums_shrink(struct db_sums *s, uint32_t pages) {
	for (uint32_t pgno = s->pages; pgno > pages; pgno--) {
		s->digest -= mix(pgno, chunk_of(s, pgno)->sum[pgno % CHUNK_PAGES]);
	}
	if (s->pages > pages) {
		__atomic_store_n(&s->pages, pages, __ATOMIC_RELEASE);
	}
}

void db_sums_set_damaged(struct db_sums *s, uint32_t pgno) {
	uint32_t none = 0;
	__atomic_compare_exchange_n(&s->damaged, &none, pgno, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
