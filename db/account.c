// An account of SQLite's memory. SQLite takes its allocator and its page cache from tables of functions, of
// which a process has one set. Ours pass everything on to SQLite's own, and count on the way.

#include "bounds.h"
#include <stddef.h>
#include <stdlib.h>

#define WEAK __attribute__((weak)) // as in sqlite.h

enum { OK = 0, NOMEM = 7, CONFIG_MALLOC = 4, CONFIG_GETMALLOC = 5, CONFIG_PCACHE2 = 18, CONFIG_GETPCACHE2 = 19 };

// What a statement that has met the bound may use beyond it, to come to its end.
enum { RESERVE = 1 << 20 };

WEAK int sqlite3_config(int, ...);

// As in sqlite3.h.
typedef struct {
	void *(*xMalloc)(int);
	void (*xFree)(void *);
	void *(*xRealloc)(void *, int);
	int (*xSize)(void *);
	int (*xRoundup)(int);
	int (*xInit)(void *);
	void (*xShutdown)(void *);
	void *pAppData;
} sqlite3_mem_methods;

typedef struct sqlite3_pcache sqlite3_pcache;
typedef struct sqlite3_pcache_page sqlite3_pcache_page;

typedef struct {
	int iVersion;
	void *pArg;
	int (*xInit)(void *);
	void (*xShutdown)(void *);
	sqlite3_pcache *(*xCreate)(int, int, int);
	void (*xCachesize)(sqlite3_pcache *, int);
	int (*xPagecount)(sqlite3_pcache *);
	sqlite3_pcache_page *(*xFetch)(sqlite3_pcache *, unsigned, int);
	void (*xUnpin)(sqlite3_pcache *, sqlite3_pcache_page *, int);
	void (*xRekey)(sqlite3_pcache *, sqlite3_pcache_page *, unsigned, unsigned);
	void (*xTruncate)(sqlite3_pcache *, unsigned);
	void (*xDestroy)(sqlite3_pcache *);
	void (*xShrink)(sqlite3_pcache *);
} sqlite3_pcache_methods2;

static sqlite3_mem_methods mem; // SQLite's own
static sqlite3_pcache_methods2 pages;
static int installed;
static uint64_t epochs; // given out

static __thread db_account *current;

void db_account_begin(db_account *a) {
	a->epoch = __atomic_add_fetch(&epochs, 1, __ATOMIC_RELAXED);
	a->live = a->peak = a->volume = 0;
	a->hit = BOUND_NONE;
}

// db_account_return gives back what a has of its pool. What is still allocated counts no more.
void db_account_return(db_account *a) {
	if (a->pool != NULL) {
		__atomic_sub_fetch(&a->pool->used, a->reserved - FREE_OF_POOL, __ATOMIC_RELAXED);
		a->reserved = FREE_OF_POOL;
	}
	db_account_begin(a);
}

// db_account_enter makes a the account of this thread and returns the one before.
db_account *db_account_enter(db_account *a) {
	db_account *outer = current;
	current = a;
	return outer;
}

void db_account_leave(db_account *outer) { current = outer; }

// ---- Memory ----

// Each allocation is preceded by the epoch of the account that it counts for, or 0. So what was
// allocated before, or elsewhere, makes no difference when it is freed.
enum { TAG = 8 };

static uint64_t *tag_of(void *p) { return (uint64_t *)((char *)p - TAG); }

// reserve_from_pool makes sure that so many bytes of the account's pool are reserved for it. An account that
// is exempt gets them in any case.
static int reserve_from_pool(db_account *a, int64_t live) {
	if (a->pool == NULL || live <= a->reserved) {
		return 1;
	}
	int64_t more = (live - a->reserved + POOL_CHUNK - 1) / POOL_CHUNK * POOL_CHUNK;
	if (__atomic_add_fetch(&a->pool->used, more, __ATOMIC_RELAXED) > a->pool->max && !a->exempt) {
		__atomic_sub_fetch(&a->pool->used, more, __ATOMIC_RELAXED);
		return 0;
	}
	a->reserved += more;
	return 1;
}

// admit says whether more bytes may be allocated, and counts them.
static int admit(db_account *a, int64_t more) {
	int64_t reserve = a->hit != BOUND_NONE ? RESERVE : 0;
	if (more > 0 && !a->exempt) {
		int hit = a->live + more > a->max_live + reserve ? BOUND_MEMORY : a->volume + more > a->max_volume + reserve ? BOUND_STEPS : BOUND_NONE;
		if (hit != BOUND_NONE) {
			a->hit = a->hit != BOUND_NONE ? a->hit : hit;
			return 0;
		}
	}
	if (!reserve_from_pool(a, a->live + more)) {
		a->hit = BOUND_MEMORY;
		return 0;
	}
	a->live += more;
	a->volume += more > 0 ? more : 0;
	if (a->live > a->peak) {
		a->peak = a->live;
	}
	return 1;
}

static void *mem_malloc(int n) {
	db_account *a = current;
	if (a != NULL && !admit(a, n)) {
		return NULL;
	}
	char *p = mem.xMalloc(n + TAG);
	if (p == NULL) {
		if (a != NULL) {
			a->live -= n;
		}
		return NULL;
	}
	p += TAG;
	*tag_of(p) = a != NULL ? a->epoch : 0;
	return p;
}

static int mem_size(void *p) { return p == NULL ? 0 : mem.xSize(tag_of(p)) - TAG; }

static void mem_free(void *p) {
	if (p == NULL) {
		return;
	}
	db_account *a = current;
	if (a != NULL && *tag_of(p) == a->epoch) {
		a->live -= mem_size(p);
	}
	mem.xFree(tag_of(p));
}

// What grows counts as a whole, whoever has allocated it first.
static void *mem_realloc(void *p, int n) {
	db_account *a = current;
	int64_t old = 0;
	if (a != NULL) {
		old = *tag_of(p) == a->epoch ? mem_size(p) : 0;
		if (!admit(a, n - old)) {
			return NULL;
		}
	}
	char *q = mem.xRealloc(tag_of(p), n + TAG);
	if (q == NULL) {
		if (a != NULL) {
			a->live -= n - old;
		}
		return NULL;
	}
	q += TAG;
	if (a != NULL) {
		*tag_of(q) = a->epoch;
	}
	return q;
}

static int mem_roundup(int n) { return mem.xRoundup(n + TAG) - TAG; }

// ---- Page cache ----

// A cache that was there before the entry holds what earlier entries have read, so its memory does not
// count. One that is made for the entry (a sorter, a temporary table) is empty then, and does.
typedef struct {
	sqlite3_pcache *real;
	int64_t page_size;
	int counts;
} cache;

static cache *cache_of(sqlite3_pcache *p) { return (cache *)p; }

static db_account *pause(cache *c) {
	db_account *a = current;
	if (!c->counts) {
		current = NULL;
	}
	return a;
}

static sqlite3_pcache *cache_create(int size, int extra, int purgeable) {
	cache *c = malloc(sizeof *c);
	if (c == NULL) {
		return NULL;
	}
	c->page_size = size;
	c->counts = current != NULL;
	c->real = pages.xCreate(size, extra, purgeable);
	if (c->real == NULL) {
		free(c);
		return NULL;
	}
	return (sqlite3_pcache *)c;
}

static void cache_size(sqlite3_pcache *p, int n) {
	db_account *a = pause(cache_of(p));
	pages.xCachesize(cache_of(p)->real, n);
	current = a;
}

static int cache_count(sqlite3_pcache *p) { return pages.xPagecount(cache_of(p)->real); }

static sqlite3_pcache_page *cache_fetch(sqlite3_pcache *p, unsigned key, int create) {
	cache *c = cache_of(p);
	db_account *a = current;
	if (a != NULL && create && !a->exempt && !c->counts && key * c->page_size > a->max_file) {
		a->hit = a->hit != BOUND_NONE ? a->hit : BOUND_GROWTH;
		return NULL;
	}
	pause(c);
	sqlite3_pcache_page *page = pages.xFetch(c->real, key, create);
	current = a;
	return page;
}

static void cache_unpin(sqlite3_pcache *p, sqlite3_pcache_page *page, int discard) {
	db_account *a = pause(cache_of(p));
	pages.xUnpin(cache_of(p)->real, page, discard);
	current = a;
}

static void cache_rekey(sqlite3_pcache *p, sqlite3_pcache_page *page, unsigned from, unsigned to) {
	db_account *a = pause(cache_of(p));
	pages.xRekey(cache_of(p)->real, page, from, to);
	current = a;
}

static void cache_truncate(sqlite3_pcache *p, unsigned limit) {
	db_account *a = pause(cache_of(p));
	pages.xTruncate(cache_of(p)->real, limit);
	current = a;
}

static void cache_destroy(sqlite3_pcache *p) {
	db_account *a = pause(cache_of(p));
	pages.xDestroy(cache_of(p)->real);
	current = a;
	free(p);
}

static void cache_shrink(sqlite3_pcache *p) {
	db_account *a = pause(cache_of(p));
	pages.xShrink(cache_of(p)->real);
	current = a;
}

// ---- Installation ----

static int install_memory(void) {
	static sqlite3_mem_methods ours;
	int rc = sqlite3_config(CONFIG_GETMALLOC, &mem);
	ours = mem;
	ours.xMalloc = mem_malloc;
	ours.xFree = mem_free;
	ours.xRealloc = mem_realloc;
	ours.xSize = mem_size;
	ours.xRoundup = mem_roundup;
	return rc != OK ? rc : sqlite3_config(CONFIG_MALLOC, &ours);
}

static int install_pages(void) {
	static sqlite3_pcache_methods2 ours;
	int rc = sqlite3_config(CONFIG_GETPCACHE2, &pages);
	ours = pages;
	ours.xCreate = cache_create;
	ours.xCachesize = cache_size;
	ours.xPagecount = cache_count;
	ours.xFetch = cache_fetch;
	ours.xUnpin = cache_unpin;
	ours.xRekey = cache_rekey;
	ours.xTruncate = cache_truncate;
	ours.xDestroy = cache_destroy;
	ours.xShrink = cache_shrink;
	return rc != OK ? rc : sqlite3_config(CONFIG_PCACHE2, &ours);
}

// install runs before main, for SQLite takes no other allocator once it has been used.
__attribute__((constructor)) static void install(void) {
	installed = sqlite3_config != NULL && install_memory() == OK && install_pages() == OK;
}

int db_account_installed(void) { return installed; }
