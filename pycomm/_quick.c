/* _quick.c: the shortest way from a method of Comm to the core. A quick_method stands in a class where a function would, and
 * calls that function unless the arguments are plain numpy arrays for which the communicator has a plan: then the core is
 * called straight away, and no Python runs. A frame of Python and a crossing through cffi cost as much as an allreduce of
 * eight bytes between two processes, so both would double its time.
 *
 * It needs no lock of the interpreter's. What all threads share is set while modules are imported, but for two things that are
 * read and written whole: numbers of dtypes, each of which is written once, and a communicator's address. Arguments are held by
 * who calls, and the core has a lock of its own. As everywhere, a communicator is not to be freed while another thread begins a
 * call of it, nor an array given another shape. */
#include "_quick.h"

#include <structmember.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/ndarraytypes.h>

static PyObject *array_type, *in_place, *finish, *drop_late, *name_op, *name_root;

/* ---- arrays, read by numpy's own macros -------------------------------------------------------------------------- */

enum { TYPES = 512 };

/* numpy's type numbers; filled with its own names, so that a renumbering there cannot mislead us here */
static _Atomic signed char dtypes[TYPES] = {
    [NPY_BOOL] = PCM_BOOL + 1,          [NPY_BYTE] = PCM_INT8 + 1,        [NPY_UBYTE] = PCM_UINT8 + 1,
    [NPY_SHORT] = PCM_INT16 + 1,        [NPY_USHORT] = PCM_UINT16 + 1,    [NPY_INT] = PCM_INT32 + 1,
    [NPY_UINT] = PCM_UINT32 + 1,        [NPY_LONG] = PCM_INT64 + 1,       [NPY_ULONG] = PCM_UINT64 + 1,
    [NPY_LONGLONG] = PCM_INT64 + 1,     [NPY_ULONGLONG] = PCM_UINT64 + 1, [NPY_HALF] = PCM_FLOAT16 + 1,
    [NPY_FLOAT] = PCM_FLOAT32 + 1,      [NPY_DOUBLE] = PCM_FLOAT64 + 1,   [NPY_CFLOAT] = PCM_COMPLEX64 + 1,
    [NPY_CDOUBLE] = PCM_COMPLEX128 + 1,
};
_Static_assert(sizeof(long) == 8, "pycomm is for 64-bit Linux");

bool quick_look(PyObject *object, int writes, struct array *array)
{
    if ((PyObject *)Py_TYPE(object) != array_type) return false;
    PyArrayObject *a = (PyArrayObject *)object;
    int need = NPY_ARRAY_C_CONTIGUOUS | (writes ? NPY_ARRAY_WRITEABLE : 0);
    int type = PyArray_TYPE(a);
    if ((PyArray_FLAGS(a) & need) != need || type < 0 || type >= TYPES) return false;
    signed char dtype = atomic_load_explicit(&dtypes[type], memory_order_relaxed);
    if (!dtype) return false;
    if (PyArray_DESCR(a)->byteorder == NPY_OPPBYTE) return false;
    array->data = PyArray_DATA(a);
    array->dtype = dtype - 1;
    array->count = 1;
    for (int i = 0; i < PyArray_NDIM(a); i++) array->count *= (uint64_t)PyArray_DIMS(a)[i];
    return true;
}

/* Fills a call from its two buffers, either of which may be None; false: Python must look. */
static bool describe(const pcm_comm *comm, struct pcm_call *call, PyObject *in, PyObject *out)
{
    struct array i = {0}, o = {0};
    if (in == in_place) in = out;
    if ((out != Py_None && !quick_look(out, 1, &o)) || (in != Py_None && !quick_look(in, 0, &i))) return false;
    if (in == Py_None) i = o, i.data = NULL;
    if (out == Py_None) o = i, o.data = NULL;
    uint64_t size = (uint64_t)pcm_comm_size(comm), in_blocks = 1, out_blocks = 1;
    bool here = pcm_comm_rank(comm) == call->root;
    switch (call->collective) {
    case PCM_ALLGATHER: out_blocks = size; break;
    case PCM_GATHER: out_blocks = here ? size : 1; break;
    case PCM_SCATTER: in_blocks = here ? size : 1; break;
    case PCM_REDUCE_SCATTER: in_blocks = size; break;
    case PCM_ALLTOALL: in_blocks = out_blocks = size; break;
    case PCM_BARRIER: i.dtype = o.dtype = PCM_UINT8; break;
    case PCM_EXSCAN:
        if (pcm_comm_rank(comm) == 0) o.data = NULL; /* there is nothing before it */
    }
    /* in place, one buffer is as long as the longer side */
    uint64_t most = in_blocks > out_blocks ? in_blocks : out_blocks;
    uint64_t count = in != out ? i.count / in_blocks : most == 1 ? i.count : i.count / most;
    if (in == out && (in == Py_None) != (call->collective == PCM_BARRIER)) return false;
    if (in == out ? count * most != i.count : count * in_blocks != i.count || count * out_blocks != o.count)
        return false;
    if (i.dtype != o.dtype || (in != out && i.data == o.data && in_blocks != out_blocks)) return false;
    call->dtype = (uint8_t)i.dtype, call->in = i.data, call->out = o.data, call->count = count;
    return true;
}

/* ---- buffers of uneven blocks: [data, counts] or [data, (counts, displs)] ------------------------------------------ */

/* Whole numbers, one a block, in a list, a tuple or an array. */
static bool look_at_numbers(PyObject *object, Py_ssize_t n, uint64_t *numbers)
{
    struct array array;
    if (quick_look(object, 0, &array)) {
        const int32_t *narrow = array.data;
        const int64_t *wide = array.data;
        bool is_wide = array.dtype == PCM_INT64 || array.dtype == PCM_UINT64;
        if ((!is_wide && array.dtype != PCM_INT32) || array.count != (uint64_t)n) return false;
        if (PyArray_NDIM((PyArrayObject *)object) != 1) return false;
        for (Py_ssize_t i = 0; i < n; i++) numbers[i] = (uint64_t)(is_wide ? wide[i] : narrow[i]);
        return true; /* what is negative is too long for any data */
    }
    if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return false;
    if (PySequence_Fast_GET_SIZE(object) != n) return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(object, i);
        int overflow = 0;
        long number = PyLong_CheckExact(item) ? PyLong_AsLongAndOverflow(item, &overflow) : -1;
        if (number < 0 || overflow) return false;
        numbers[i] = (uint64_t)number;
    }
    return true;
}

/* Reads n blocks; false: Python must look, also where they do not lie in the data, or not in order if they are written. */
static bool look_at_blocks(PyObject *object, int writes, Py_ssize_t n, struct array *array, uint64_t *counts,
                           uint64_t *displs)
{
    if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return false;
    if (PySequence_Fast_GET_SIZE(object) != 2 || !quick_look(PySequence_Fast_GET_ITEM(object, 0), writes, array))
        return false;
    PyObject *layout = PySequence_Fast_GET_ITEM(object, 1);
    bool placed = PyTuple_CheckExact(layout);
    if (placed && PyTuple_GET_SIZE(layout) != 2) return false;
    if (!look_at_numbers(placed ? PyTuple_GET_ITEM(layout, 0) : layout, n, counts)) return false;
    if (placed && !look_at_numbers(PyTuple_GET_ITEM(layout, 1), n, displs)) return false;
    uint64_t end = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!placed) displs[i] = end;
        if (displs[i] > array->count || counts[i] > array->count - displs[i]) return false;
        if (writes && counts[i] && displs[i] < end) return false;
        if (counts[i]) end = displs[i] + counts[i];
    }
    return true;
}

/* One block of all that is there. */
static bool look_at_whole(PyObject *object, int writes, struct array *array, uint64_t *count, uint64_t *displ)
{
    if (!quick_look(object, writes, array)) return false;
    *count = array->count, *displ = 0;
    return true;
}

/* Fills a call of uneven blocks; returns what holds their counts, or NULL (without an error): Python must look. */
static PyObject *describe_blocks(const pcm_comm *comm, struct pcm_call *call, PyObject *in, PyObject *out)
{
    struct array i = {0}, o = {0};
    Py_ssize_t size = pcm_comm_size(comm), rank = pcm_comm_rank(comm);
    PyObject *numbers = PyBytes_FromStringAndSize(NULL, 4 * size * (Py_ssize_t)sizeof(uint64_t));
    if (!numbers) return PyErr_Clear(), NULL;
    uint64_t *counts = (uint64_t *)PyBytes_AS_STRING(numbers), *displs = counts + size;
    uint64_t *to_counts = displs + size, *to_displs = to_counts + size;
    bool here = rank == call->root, gathers = call->collective != PCM_ALLTOALL && call->collective != PCM_SCATTER;
    bool brings = call->collective != PCM_SCATTER || here, gets = call->collective != PCM_GATHER || here, fine;
    bool by_block_in = call->collective == PCM_ALLTOALL || call->collective == PCM_SCATTER;
    bool by_block_out = call->collective == PCM_ALLTOALL || gathers;
    fine = !brings ||
           (by_block_in ? look_at_blocks(in, 0, size, &i, counts, displs) : look_at_whole(in, 0, &i, counts, displs));
    fine = fine && (!gets || (by_block_out ? look_at_blocks(out, 1, size, &o, to_counts, to_displs)
                                           : look_at_whole(out, 1, &o, to_counts, to_displs)));
    if (fine && brings && gets) {
        fine = i.dtype == o.dtype && i.data != o.data;
        if (gathers) fine = fine && counts[0] == to_counts[rank];
        if (call->collective == PCM_SCATTER) fine = fine && counts[rank] == to_counts[0];
    }
    if (!fine) {
        Py_DECREF(numbers);
        return NULL;
    }
    if (brings) call->in = i.data, call->in_counts = counts, call->in_displs = displs;
    if (gets) call->out = o.data, call->out_counts = to_counts, call->out_displs = to_displs;
    call->dtype = (uint8_t)(brings ? i.dtype : o.dtype);
    return numbers;
}

/* ---- Handle: what a quick method finds in its first argument ------------------------------------------------------- */

static PyMemberDef handle_members[] = {
    {"_address", T_ULONGLONG, offsetof(struct handle, address), 0, "where the core's communicator is, or 0"},
    {"_passes", T_BOOL, offsetof(struct handle, passes), 0, "whether ranks may pass on others' uneven blocks"},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject quick_handle_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pycomm._quick.Handle",
    .tp_basicsize = sizeof(struct handle),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_doc = "The part of a communicator that quick methods read.",
    .tp_members = handle_members,
    .tp_new = PyType_GenericNew,
};

/* ---- quick methods --------------------------------------------------------------------------------------------------- */

static bool small_int(PyObject *object, long *value)
{
    int overflow;
    if (!PyLong_Check(object)) return false; /* an Op is an int */
    *value = PyLong_AsLongAndOverflow(object, &overflow);
    return !overflow && *value >= 0 && *value < INT32_MAX;
}

/* Reads what comes after the buffers, by place or by name. */
static bool options(const struct quick_method *q, PyObject *const *args, Py_ssize_t n, PyObject *names, long *op,
                    long *root)
{
    Py_ssize_t at = 1 + q->buffers;
    if (q->op && at < n && !small_int(args[at++], op)) return false;
    if (q->root && at < n && !small_int(args[at++], root)) return false;
    for (Py_ssize_t k = 0; names && k < PyTuple_GET_SIZE(names); k++) {
        PyObject *name = PyTuple_GET_ITEM(names, k);
        long *value = q->op && name == name_op ? op : q->root && name == name_root ? root : NULL;
        if (!value || !small_int(args[n + k], value)) return false; /* a name given twice is for Python to refuse */
    }
    return n + (names ? PyTuple_GET_SIZE(names) : 0) <= 1 + q->buffers + q->op + q->root;
}

/* What is left of a call that takes longer than a moment, or has failed. */
static PyObject *go_on(int status, PyObject *in, PyObject *out, PyObject *counts)
{
    PyObject *keep = PyTuple_Pack(3, in, out, counts ? counts : Py_None), *result = NULL;
    if (keep) result = PyObject_CallFunction(finish, "iO", status, keep);
    if (keep && !result) { /* perhaps of a signal's handler, before anybody waited for the call: it goes on */
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        Py_XDECREF(PyObject_CallOneArg(drop_late, keep));
        PyErr_Restore(type, value, trace);
    }
    Py_XDECREF(keep);
    return result;
}

static PyObject *quick_call(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    const struct quick_method *q = (const struct quick_method *)self;
    Py_ssize_t n = PyVectorcall_NARGS(flags);
    long op = PCM_SUM, root = 0;
    if (n < 1 + q->buffers || !PyObject_TypeCheck(args[0], &quick_handle_type) ||
        !options(q, args, n, names, &op, &root))
        goto look_closer;
    struct handle *handle = (struct handle *)args[0];
    pcm_comm *comm = (pcm_comm *)atomic_load_explicit(&handle->address, memory_order_relaxed);
    if (!comm || op >= PCM_NOPS) goto look_closer;
    PyObject *in = q->buffers ? args[1] : Py_None, *out = q->buffers ? args[q->buffers] : Py_None;
    bool here = pcm_comm_rank(comm) == root;
    if (q->what == PCM_BROADCAST && !here) in = Py_None;
    if (q->what == PCM_SCATTER && !here) in = Py_None;
    if ((q->what == PCM_REDUCE || q->what == PCM_GATHER) && !here) out = Py_None;
    struct pcm_call call = {.collective = (uint8_t)q->what, .op = (uint8_t)op, .root = (int32_t)root};
    PyObject *counts = NULL;
    if (q->uneven) {
        bool passes = q->what == PCM_ALLTOALL && handle->passes;
        if (passes || !(counts = describe_blocks(comm, &call, in, out))) goto look_closer;
    } else if (!describe(comm, &call, in, out)) {
        goto look_closer;
    }
    int status;
    Py_BEGIN_ALLOW_THREADS status = pcm_run(comm, &call, QUICK_TURN);
    Py_END_ALLOW_THREADS PyObject *result = NULL;
    if (status && status != PCM_NO_PLAN) result = go_on(status, in, out, counts);
    Py_XDECREF(counts);
    if (!status) Py_RETURN_NONE;
    if (status != PCM_NO_PLAN) return result;
look_closer:
    return PyObject_Vectorcall(q->function, args, flags, names);
}

static PyTypeObject quick_type;

PyObject *quick_make(PyObject *function, vectorcallfunc call, int what)
{
    struct quick_method *q = (struct quick_method *)quick_type.tp_alloc(&quick_type, 0);
    if (!q) return NULL;
    q->call = call, q->function = Py_NewRef(function), q->what = what;
    return (PyObject *)q;
}

static PyObject *quick_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"function", "collective", "buffers", "op", "root", "uneven", NULL};
    PyObject *function;
    int collective, buffers, op, root, uneven;
    (void)type;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Oiippp", names, &function, &collective, &buffers, &op, &root,
                                     &uneven))
        return NULL;
    struct quick_method *q = (struct quick_method *)quick_make(function, quick_call, collective);
    if (q) q->buffers = buffers, q->op = op, q->root = root, q->uneven = uneven;
    return (PyObject *)q;
}

static int quick_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((struct quick_method *)self)->function);
    Py_VISIT(((struct quick_method *)self)->attributes);
    return 0;
}

static int quick_clear(PyObject *self)
{
    Py_CLEAR(((struct quick_method *)self)->function);
    Py_CLEAR(((struct quick_method *)self)->attributes);
    return 0;
}

static void quick_free(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    quick_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *quick_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    return object ? PyMethod_New(self, object) : Py_NewRef(self);
}

static PyGetSetDef quick_attributes[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject quick_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pycomm._quick.quick_method",
    .tp_basicsize = sizeof(struct quick_method),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = quick_new,
    .tp_dealloc = quick_free,
    .tp_traverse = quick_traverse,
    .tp_clear = quick_clear,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(struct quick_method, call),
    .tp_descr_get = quick_get,
    .tp_getset = quick_attributes,
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_dictoffset = offsetof(struct quick_method, attributes),
};

/* ---- the module ------------------------------------------------------------------------------------------------------- */

static PyObject *know_dtype(PyObject *module, PyObject *args)
{
    int number, dtype;
    (void)module;
    if (!PyArg_ParseTuple(args, "ii", &number, &dtype)) return NULL;
    if (number >= 0 && number < TYPES) atomic_store(&dtypes[number], (signed char)(dtype + 1));
    Py_RETURN_NONE;
}

static PyObject *know_python(PyObject *module, PyObject *args)
{
    PyObject *marker, *finisher, *dropper;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOO", &marker, &finisher, &dropper)) return NULL;
    Py_XSETREF(in_place, Py_NewRef(marker));
    Py_XSETREF(finish, Py_NewRef(finisher));
    Py_XSETREF(drop_late, Py_NewRef(dropper));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"know_dtype", know_dtype, METH_VARARGS, "Tell which pcm_dtype a numpy type number is."},
    {"know_python", know_python, METH_VARARGS, "Tell IN_PLACE, and what finishes and what drops a call."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, .m_name = "_quick", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__quick(void)
{
    PyObject *numpy = PyImport_ImportModule("numpy"), *module = NULL;
    array_type = numpy ? PyObject_GetAttrString(numpy, "ndarray") : NULL;
    name_op = PyUnicode_InternFromString("op"), name_root = PyUnicode_InternFromString("root");
    Py_XDECREF(numpy);
    if (array_type && name_op && name_root && !PyType_Ready(&quick_handle_type) && !PyType_Ready(&quick_type) &&
        (module = PyModule_Create(&module_def)) &&
        (PyModule_AddObjectRef(module, "Handle", (PyObject *)&quick_handle_type) ||
         PyModule_AddObjectRef(module, "quick_method", (PyObject *)&quick_type) || quick_add_requests(module)))
        Py_CLEAR(module);
#ifdef Py_GIL_DISABLED
    if (module && PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED)) Py_CLEAR(module);
#endif
    return module;
}
