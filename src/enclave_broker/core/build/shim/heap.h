/* The heap: a two-level segregated fit over one run of memory at the end of ours. Constant time; free neighbours are
   joined; what was freed last is used first, so that few pages are touched. The allocator of this compiler's C library
   rounds to powers of two and never joins: a script would get half of its memory.

   No request fails: what can't be had ends the engine with a verdict, which a script can't catch. */

enum {
    PAGE_BYTES = 65536,
    MAX_MEMORY_BYTES = 256 << 20, /* as the linker flag */
    CLASS_BITS = 4,               /* sixteen size classes between one power of two and the next */
    CLASSES = 1 << CLASS_BITS,
    FIRST_POWER = 7, /* below 2^7 bytes the classes are 8 bytes apart */
    POWERS = 29 - FIRST_POWER,
    MIN_CHUNK = 16,
    GROWTH_BYTES = 1 << 20, /* asked for at once where the cap permits it: a call into the host costs */
    IS_FREE = 1,
    AFTER_FREE = 2, /* the chunk before is free, and `before` is valid */
};

/* A chunk: its header, then what is in use, or the links of the list of free chunks of its class. */
typedef struct Chunk {
    struct Chunk *before; /* where it starts; only AFTER_FREE */
    uint32_t size;        /* of header and contents, a multiple of 8, with flags */
    struct Chunk *next, *previous;
} Chunk;

enum { HEADER_BYTES = 8 };

static uint32_t memory_cap; /* bytes; 0 until the first start */
static uint32_t heap_end;   /* nothing is written there: the free end of the heap is no part of the image */
static Chunk *last_free;    /* the chunk that ends there, if it is free */
static uint32_t power_map, class_maps[POWERS];
static Chunk *free_chunks[POWERS][CLASSES];

static uint32_t chunk_size(const Chunk *chunk) { return chunk->size & ~7u; }
static Chunk *chunk_at(uint32_t address) { return (Chunk *)(uintptr_t)address; }
static uint32_t address_of(const void *at) { return (uint32_t)(uintptr_t)at; }
static Chunk *chunk_after(const Chunk *chunk) { return chunk_at(address_of(chunk) + chunk_size(chunk)); }

static void find_class(uint32_t size, uint32_t *power, uint32_t *class)
{
    if (size < 1u << FIRST_POWER) {
        *power = 0;
        *class = size >> (FIRST_POWER - CLASS_BITS);
        return;
    }
    uint32_t top = 31 - __builtin_clz(size);
    *power = top - FIRST_POWER + 1;
    *class = (size >> (top - CLASS_BITS)) - CLASSES;
}

static void link_chunk(Chunk *chunk, uint32_t size)
{
    uint32_t power, class;
    find_class(size, &power, &class);
    chunk->size = size | IS_FREE | (chunk->size & AFTER_FREE);
    chunk->previous = NULL;
    chunk->next = free_chunks[power][class];
    if (chunk->next)
        chunk->next->previous = chunk;
    free_chunks[power][class] = chunk;
    class_maps[power] |= 1u << class;
    power_map |= 1u << power;
    Chunk *after = chunk_after(chunk);
    if (address_of(after) == heap_end) {
        last_free = chunk;
    } else {
        after->before = chunk;
        after->size |= AFTER_FREE;
    }
}

static void unlink_chunk(Chunk *chunk)
{
    uint32_t power, class;
    find_class(chunk_size(chunk), &power, &class);
    if (chunk->next)
        chunk->next->previous = chunk->previous;
    if (chunk->previous)
        chunk->previous->next = chunk->next;
    else if (!(free_chunks[power][class] = chunk->next) && !(class_maps[power] &= ~(1u << class)))
        power_map &= ~(1u << power);
    chunk->size &= ~IS_FREE;
    if (chunk == last_free)
        last_free = NULL;
    else
        chunk_after(chunk)->size &= ~AFTER_FREE;
}

static bool is_free(const Chunk *chunk) { return address_of(chunk) != heap_end && chunk->size & IS_FREE; }

/* A free chunk of a class all of whose chunks are large enough; NULL if there is none. */
static Chunk *find_chunk(uint32_t size)
{
    uint32_t power, class, classes;
    if (size >= 1u << FIRST_POWER)
        size += (1u << (31 - __builtin_clz(size) - CLASS_BITS)) - 1;
    find_class(size, &power, &class);
    if (power >= POWERS)
        return NULL;
    classes = class_maps[power] & (~0u << class);
    if (!classes) {
        uint32_t powers = power + 1 < 32 ? power_map & (~0u << (power + 1)) : 0;
        if (!powers)
            return NULL;
        power = __builtin_ctz(powers);
        classes = class_maps[power];
    }
    return free_chunks[power][__builtin_ctz(classes)];
}

static __attribute__((noinline)) void free_chunk(Chunk *chunk)
{
    uint32_t size = chunk_size(chunk);
    Chunk *after = chunk_after(chunk);
    if (is_free(after)) {
        unlink_chunk(after);
        size += chunk_size(after);
    }
    if (chunk->size & AFTER_FREE) {
        chunk = chunk->before;
        unlink_chunk(chunk);
        size += chunk_size(chunk);
    }
    link_chunk(chunk, size);
}

/* Makes the memory larger by at least so many bytes: one more free chunk, joined to the last. */
static void grow_heap(uint32_t bytes)
{
    uint32_t size = __builtin_wasm_memory_size(0) * PAGE_BYTES;
    uint32_t cap = memory_cap && memory_cap < MAX_MEMORY_BYTES ? memory_cap : MAX_MEMORY_BYTES;
    uint32_t room = size < cap ? (cap - size) / PAGE_BYTES : 0, pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    if (pages > room)
        stop(MEMORY_LIMIT);
    if (pages < GROWTH_BYTES / PAGE_BYTES)
        pages = room < GROWTH_BYTES / PAGE_BYTES ? room : GROWTH_BYTES / PAGE_BYTES;
    if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX)
        stop(memory_cap ? HOST_MEMORY : MEMORY_LIMIT);
    Chunk *chunk = chunk_at(heap_end), *before = last_free;
    heap_end += pages * PAGE_BYTES;
    chunk->before = before;
    chunk->size = pages * PAGE_BYTES | (before ? AFTER_FREE : 0);
    last_free = NULL;
    free_chunk(chunk);
}

/* Called once, before anything is allocated. */
static void open_heap(void)
{
    extern char __heap_base;
    uint32_t base = (address_of(&__heap_base) + 7) & ~7u;
    heap_end = __builtin_wasm_memory_size(0) * PAGE_BYTES;
    Chunk *chunk = chunk_at(base);
    chunk->size = heap_end - base;
    free_chunk(chunk);
}

/* Makes sure of so much free memory at the end, all of it zero, so that it takes no room in the image. */
static void reserve_heap(uint32_t bytes)
{
    uint32_t there = last_free ? chunk_size(last_free) : 0;
    if (there < bytes)
        grow_heap(bytes - there);
    memset(last_free + 1, 0, chunk_size(last_free) - sizeof *last_free);
}

/* Takes every free chunk but the last for good, so that what is allocated from now on lies side by side, and the image
   doesn't carry what had been there. */
static void retire_holes(void)
{
    for (uint32_t power = 0; power < POWERS; power++)
        for (uint32_t class = 0; class < CLASSES; class++)
            for (Chunk *chunk = free_chunks[power][class], *next; chunk; chunk = next) {
                next = chunk->next;
                if (chunk == last_free)
                    continue;
                unlink_chunk(chunk);
                memset((char *)chunk + HEADER_BYTES, 0, chunk_size(chunk) - HEADER_BYTES);
            }
}

static uint32_t size_for(size_t bytes)
{
    if (bytes > MAX_MEMORY_BYTES)
        stop(MEMORY_LIMIT);
    uint32_t size = ((uint32_t)bytes + HEADER_BYTES + 7) & ~7u;
    return size < MIN_CHUNK ? MIN_CHUNK : size;
}

/* Gives back what a chunk in use has beyond `size`. */
static void trim_chunk(Chunk *chunk, uint32_t size)
{
    uint32_t rest = chunk_size(chunk) - size;
    if (rest < MIN_CHUNK)
        return;
    chunk->size = size | (chunk->size & AFTER_FREE);
    Chunk *tail = chunk_after(chunk);
    tail->size = rest;
    free_chunk(tail);
}

static __attribute__((noinline)) void *allocate(size_t bytes)
{
    uint32_t size = size_for(bytes);
    if (!heap_end)
        open_heap();
    Chunk *chunk = find_chunk(size);
    if (!chunk) {
        grow_heap(size + size / CLASSES); /* so that its class has it, whatever the end of the heap looks like */
        chunk = find_chunk(size);
    }
    unlink_chunk(chunk);
    trim_chunk(chunk, size);
    return (char *)chunk + HEADER_BYTES;
}

/* Not one function with calloc's: the compiler would make that call itself. */
void *malloc(size_t bytes) { return allocate(bytes); }

void free(void *at)
{
    if (at)
        free_chunk((Chunk *)((char *)at - HEADER_BYTES));
}

void *calloc(size_t count, size_t size)
{
    if (size && count > MAX_MEMORY_BYTES / size)
        stop(MEMORY_LIMIT);
    return memset(allocate(count * size), 0, count * size);
}

size_t malloc_usable_size(void *at) { return chunk_size((Chunk *)((char *)at - HEADER_BYTES)) - HEADER_BYTES; }

void *realloc(void *at, size_t bytes)
{
    if (!at)
        return allocate(bytes);
    uint32_t size = size_for(bytes);
    Chunk *chunk = (Chunk *)((char *)at - HEADER_BYTES), *after = chunk_after(chunk);
    uint32_t old = chunk_size(chunk), joined = old + (is_free(after) ? chunk_size(after) : 0);
    if (size > joined) {
        void *moved = allocate(bytes);
        memcpy(moved, at, old - HEADER_BYTES);
        free(at);
        return moved;
    }
    if (size > old) {
        unlink_chunk(after);
        chunk->size += joined - old;
    }
    trim_chunk(chunk, size);
    return at;
}
