/* _quick_requests.c: operations that go on while Python computes, as far as C sees to them: an Operation is what Request is
 * made of, and the quick methods here start messages and wait, for one operation or for many, without a line of Python. */
#include "_quick.h"

#include <stdlib.h>
#include <string.h>
#include <structmember.h>

static PyTypeObject operation_type;
static PyObject *request_type, *status_type; /* Python's Request and Status */
static PyObject *dropped, *sweep, *fail; /* operations that nobody waits for; what looks at them; raises a status */
static PyObject *name_tag, *name_peer[2], *name_become, *name_append;

enum { SEND, RECEIVE };

struct bound { /* what Start starts, again and again */
    struct pcm_call call;
    PyObject *comm, *keep;
};

struct operation {
    PyObject_HEAD pcm_request *handle; /* NULL: the core has nothing under way */
    PyObject *keep; /* alive as long as the core may look at it */
    PyObject *after; /* called with the status at the end */
    PyObject *value; /* what that has returned */
    PyObject *status; /* NULL: it is still to be made, of `info` */
    struct pcm_status_info info;
    struct bound *bound;
    char done; /* and nobody has been told so yet */
    char cancelled;
    char compound; /* it is made of others, and waited for in Python */
};

static struct operation *of(PyObject *self) { return (struct operation *)self; }

static const struct pcm_status_info nothing = {.source = -1, .tag = -1, .dtype = -1};

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static PyObject *operation_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    PyObject *self = type->tp_alloc(type, 0);
    if (self) of(self)->info = nothing;
    return self;
}

static void unbind(struct operation *op)
{
    struct bound *bound = op->bound;
    op->bound = NULL;
    if (!bound) return;
    Py_DECREF(bound->comm);
    Py_DECREF(bound->keep);
    free(bound);
}

static int operation_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct operation *op = of(self);
    Py_VISIT(op->keep);
    Py_VISIT(op->after);
    Py_VISIT(op->value);
    Py_VISIT(op->status);
    if (op->bound) {
        Py_VISIT(op->bound->comm);
        Py_VISIT(op->bound->keep);
    }
    return 0;
}

static int operation_clear(PyObject *self)
{
    struct operation *op = of(self);
    Py_CLEAR(op->keep);
    Py_CLEAR(op->after);
    Py_CLEAR(op->value);
    Py_CLEAR(op->status);
    unbind(op);
    return 0;
}

/* Nobody will wait for what is under way: it goes on with its buffers until it ends. */
static int drop(pcm_request *handle, PyObject *keep)
{
    PyObject *pair = Py_BuildValue("(NO)", PyLong_FromVoidPtr(handle), keep ? keep : Py_None);
    PyObject *none = pair ? PyObject_CallMethodOneArg(dropped, name_append, pair) : NULL;
    Py_XDECREF(pair);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

/* The same while an exception is on its way, or none can be raised. */
static void drop_quietly(pcm_request *handle, PyObject *keep)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (drop(handle, keep)) PyErr_WriteUnraisable(keep);
    PyErr_Restore(type, value, trace);
}

/* Nothing but this may be done here, where the world may be locked. */
static void operation_finalize(PyObject *self)
{
    struct operation *op = of(self);
    if (op->handle) drop_quietly(op->handle, op->keep);
    op->handle = NULL;
}

static void operation_free(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self)) return;
    PyObject_GC_UnTrack(self);
    operation_clear(self);
    Py_TYPE(self)->tp_free(self);
}

/* Lets go of the dropped operations that are done. */
static int sweep_up(void)
{
    if (PyObject_Size(dropped) <= 0) return 0;
    PyObject *none = PyObject_CallNoArgs(sweep);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static PyObject *make_request(void)
{
    return sweep_up() ? NULL : operation_new((PyTypeObject *)request_type, NULL, NULL);
}

/* ---- the end of an operation --------------------------------------------------------------------------------------- */

static int raise_status(int code)
{
    PyObject *none = PyObject_CallFunction(fail, "i", code);
    Py_XDECREF(none);
    return -1;
}

static PyObject *make_status(const struct pcm_status_info *info, bool cancelled)
{
    return PyObject_CallFunction(status_type, "iiKOi", (int)info->source, (int)info->tag,
                                 (unsigned long long)info->bytes, cancelled ? Py_True : Py_False, (int)info->dtype);
}

static PyObject *status_of(struct operation *op)
{
    if (!op->status) op->status = make_status(&op->info, op->cancelled);
    return Py_XNewRef(op->status);
}

static int see_to_end(struct operation *op)
{
    PyObject *after = op->after;
    op->after = NULL;
    if (!after || after == Py_None) {
        Py_XDECREF(after);
        return 0;
    }
    PyObject *status = status_of(op), *value = status ? PyObject_CallOneArg(after, status) : NULL;
    Py_DECREF(after);
    Py_XDECREF(status);
    if (!value) return -1;
    Py_XSETREF(op->value, value);
    return 0;
}

/* The core is done with an operation, and its handle is no more. */
static int ended(struct operation *op, int code)
{
    op->done = 0;
    Py_CLEAR(op->keep);
    Py_CLEAR(op->status);
    if (code || op->cancelled) Py_CLEAR(op->after);
    if (code) return raise_status(code);
    if (see_to_end(op)) return -1;
    op->done = 1;
    return 0;
}

/* Gives an operation some seconds: 1 if it is done, 0 if not, -1 if it has failed. */
static int poll(struct operation *op, double seconds)
{
    if (!op->handle) return see_to_end(op) ? -1 : 1;
    int code;
    Py_BEGIN_ALLOW_THREADS code = pcm_wait(op->handle, seconds, &op->info);
    if (code != PCM_AGAIN) op->handle = NULL;
    Py_END_ALLOW_THREADS if (code == PCM_AGAIN) return 0;
    return ended(op, code) ? -1 : 1;
}

static int tell(struct operation *op, PyObject *into)
{
    op->done = 0;
    if (!into || into == Py_None) return 0;
    PyObject *status = status_of(op), *none = status ? PyObject_CallMethodOneArg(into, name_become, status) : NULL;
    Py_XDECREF(status);
    Py_XDECREF(none);
    return none ? 0 : -1;
}

static int wait_for(struct operation *op)
{
    int done;
    while (!(done = poll(op, QUICK_TURN)))
        if (PyErr_CheckSignals()) return -1;
    return done > 0 ? 0 : -1;
}

static bool is_simple(PyObject *object) { return PyObject_TypeCheck(object, &operation_type) && !of(object)->compound; }

/* Wait(self, status=None) */
static PyObject *quick_wait(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Py_ssize_t n = PyVectorcall_NARGS(flags);
    if (n < 1 || n > 2 || names || !is_simple(args[0]))
        return PyObject_Vectorcall(((struct quick_method *)self)->function, args, flags, names);
    if (wait_for(of(args[0])) || tell(of(args[0]), n == 2 ? args[1] : NULL)) return NULL;
    Py_RETURN_TRUE;
}

/* Waits for many without holding the interpreter: until all are done, one has failed (its code is returned), or some time
 * has passed. */
static int wait_together(PyObject *const *items, Py_ssize_t n)
{
    int code = PCM_OK;
    Py_BEGIN_ALLOW_THREADS for (Py_ssize_t i = 0; i < n && code == PCM_OK; i++)
    {
        struct operation *op = of(items[i]);
        if (!op->handle) continue;
        code = pcm_wait(op->handle, QUICK_TURN, &op->info);
        if (code == PCM_AGAIN) break;
        op->handle = NULL;
        op->done = 2; /* the core is done, and Python knows nothing of it */
    }
    Py_END_ALLOW_THREADS return code;
}

/* Keeps the exception that was raised, if it is the first. */
static void keep_first(PyObject **first)
{
    PyObject *type, *value, *trace;
    if (!PyErr_Occurred()) return;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace) PyException_SetTraceback(value, trace);
    if (*first)
        Py_DECREF(value);
    else
        *first = value;
    Py_XDECREF(type);
    Py_XDECREF(trace);
}

/* Sees to the ends of those that the core has done; `code` is that of the last of them. */
static void see_to_ends(PyObject *const *items, Py_ssize_t n, int code, PyObject **first)
{
    Py_ssize_t last = n - 1;
    while (last >= 0 && of(items[last])->done != 2) last--;
    if (last >= 0 && code != PCM_AGAIN) { /* before others, for what it raises is this thread's last error */
        ended(of(items[last]), code);
        keep_first(first);
    }
    for (Py_ssize_t i = 0; i <= last; i++) {
        if (of(items[i])->done != 2) continue;
        ended(of(items[i]), PCM_OK);
        keep_first(first);
    }
}

static int wait_all(PyObject *const *items, Py_ssize_t n)
{
    PyObject *first = NULL; /* error; the others are waited for all the same */
    int code;
    do {
        code = wait_together(items, n);
        see_to_ends(items, n, code, &first);
        if (code == PCM_AGAIN && PyErr_CheckSignals()) {
            Py_XDECREF(first);
            return -1;
        }
    } while (code);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (of(items[i])->after && see_to_end(of(items[i]))) keep_first(&first);
        of(items[i])->done = 0;
    }
    if (!first) return 0;
    PyErr_SetObject((PyObject *)Py_TYPE(first), first);
    Py_DECREF(first);
    return -1;
}

/* Waitall(cls, requests) */
static PyObject *quick_waitall(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Py_ssize_t n = PyVectorcall_NARGS(flags);
    bool simple = n == 2 && !names && (PyList_CheckExact(args[1]) || PyTuple_CheckExact(args[1]));
    PyObject *items = simple ? PySequence_Tuple(args[1]) : NULL; /* which nobody changes meanwhile */
    if (simple && !items) return NULL;
    for (Py_ssize_t i = 0; simple && i < PyTuple_GET_SIZE(items); i++) simple = is_simple(PyTuple_GET_ITEM(items, i));
    PyObject *result = NULL;
    if (!simple)
        result = PyObject_Vectorcall(((struct quick_method *)self)->function, args, flags, names);
    else if (!wait_all(&PyTuple_GET_ITEM(items, 0), PyTuple_GET_SIZE(items)))
        result = Py_NewRef(Py_True);
    Py_XDECREF(items);
    return result;
}

/* ---- messages ------------------------------------------------------------------------------------------------------ */

struct message {
    struct array array;
    int peer, tag;
    PyObject *status; /* that a blocking receive fills */
};

static bool small(PyObject *object, int least, int *value)
{
    int overflow;
    if (!PyLong_Check(object)) return false;
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    *value = (int)number;
    return !overflow && number >= least && number < INT32_MAX;
}

/* Reads (comm, buf, peer, tag, and of a blocking receive a status); false: Python must look. */
static bool read_message(int what, bool blocking, PyObject *const *args, Py_ssize_t n, PyObject *names,
                         struct message *m)
{
    int least = what == RECEIVE ? -1 : 0;
    m->tag = least, m->peer = what == RECEIVE ? PCM_ANY_SOURCE : -2, m->status = NULL;
    if (n < 2 || n > 4 + (what == RECEIVE && blocking) || !PyObject_TypeCheck(args[0], &quick_handle_type))
        return false;
    if ((n > 2 && !small(args[2], least, &m->peer)) || (n > 3 && !small(args[3], least, &m->tag))) return false;
    if (n > 4) m->status = args[4];
    for (Py_ssize_t k = 0; names && k < PyTuple_GET_SIZE(names); k++) {
        PyObject *name = PyTuple_GET_ITEM(names, k);
        int *value = name == name_tag && n < 4 ? &m->tag : name == name_peer[what] && n < 3 ? &m->peer : NULL;
        if (!value || !small(args[n + k], least, value)) return false;
    }
    const pcm_comm *comm = (const pcm_comm *)((struct handle *)args[0])->address;
    return comm && m->peer >= least && m->peer < pcm_comm_size(comm) && quick_look(args[1], what == RECEIVE, &m->array);
}

static int start(int what, PyObject *comm, const struct message *m, pcm_request **handle)
{
    pcm_comm *core = (pcm_comm *)((struct handle *)comm)->address;
    uint64_t bytes = m->array.count * pcm_dtype_size(m->array.dtype);
    int code;
    Py_BEGIN_ALLOW_THREADS if (what == SEND) code =
        pcm_send_start(core, m->array.data, bytes, m->array.dtype, m->peer, m->tag, 0, handle);
    else code = pcm_recv_start(core, m->array.data, bytes, m->array.dtype, m->peer, m->tag, 0, handle);
    Py_END_ALLOW_THREADS return code ? raise_status(code) : 0;
}

/* Isend, Irecv */
static PyObject *quick_start_message(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    const struct quick_method *q = (const struct quick_method *)self;
    struct message m;
    if (!read_message(q->what, false, args, PyVectorcall_NARGS(flags), names, &m))
        return PyObject_Vectorcall(q->function, args, flags, names);
    PyObject *request = make_request();
    if (!request) return NULL;
    of(request)->keep = Py_NewRef(args[1]);
    if (!start(q->what, args[0], &m, &of(request)->handle)) return request;
    Py_DECREF(request);
    return NULL;
}

/* Send, Recv */
static PyObject *quick_message(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    const struct quick_method *q = (const struct quick_method *)self;
    struct message m;
    struct pcm_status_info info;
    pcm_request *handle = NULL;
    int code;
    if (!read_message(q->what, true, args, PyVectorcall_NARGS(flags), names, &m))
        return PyObject_Vectorcall(q->function, args, flags, names);
    if (start(q->what, args[0], &m, &handle)) return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS code = pcm_wait(handle, QUICK_TURN, &info);
        Py_END_ALLOW_THREADS if (code == PCM_AGAIN && PyErr_CheckSignals()) return drop_quietly(handle, args[1]), NULL;
    } while (code == PCM_AGAIN);
    if (code) return raise_status(code), NULL;
    if (m.status && m.status != Py_None) {
        PyObject *status = make_status(&info, false);
        PyObject *none = status ? PyObject_CallMethodOneArg(m.status, name_become, status) : NULL;
        Py_XDECREF(status);
        if (!none) return NULL;
        Py_DECREF(none);
    }
    Py_RETURN_NONE;
}

/* ---- Operation, as Python sees it ---------------------------------------------------------------------------------- */

static PyObject *operation_poll(PyObject *self, PyObject *seconds)
{
    double turn = PyFloat_AsDouble(seconds);
    if (turn == -1.0 && PyErr_Occurred()) return NULL;
    int done = poll(of(self), turn);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

static PyObject *operation_drop(PyObject *self, PyObject *unused)
{
    struct operation *op = of(self);
    (void)unused;
    if (op->handle && drop(op->handle, op->keep)) return NULL;
    op->handle = NULL;
    Py_CLEAR(op->keep);
    Py_CLEAR(op->after);
    op->done = 0;
    Py_RETURN_NONE;
}

static PyObject *operation_become(PyObject *self, PyObject *other)
{
    if (!PyObject_TypeCheck(other, &operation_type)) return PyErr_Format(PyExc_TypeError, "not an Operation");
    struct operation *op = of(self), *from = of(other);
    op->handle = from->handle, op->info = from->info;
    from->handle = NULL;
    Py_XSETREF(op->keep, from->keep);
    Py_XSETREF(op->after, from->after);
    Py_XSETREF(op->status, from->status);
    from->keep = from->after = from->status = NULL;
    op->done = from->done, op->cancelled = 0;
    Py_RETURN_NONE;
}

static PyObject *operation_bind(PyObject *self, PyObject *args)
{
    PyObject *comm, *keep;
    unsigned long long call;
    if (!PyArg_ParseTuple(args, "O!KO", &quick_handle_type, &comm, &call, &keep)) return NULL;
    struct bound *bound = malloc(sizeof *bound);
    if (!bound) return PyErr_NoMemory();
    bound->call = *(const struct pcm_call *)(uintptr_t)call;
    bound->comm = Py_NewRef(comm), bound->keep = Py_NewRef(keep);
    unbind(of(self));
    of(self)->bound = bound;
    Py_RETURN_NONE;
}

static PyObject *operation_unbind(PyObject *self, PyObject *unused)
{
    (void)unused;
    unbind(of(self));
    Py_RETURN_NONE;
}

/* Start(self) */
static PyObject *quick_start(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Py_ssize_t n = PyVectorcall_NARGS(flags);
    struct operation *op = n == 1 && !names && is_simple(args[0]) ? of(args[0]) : NULL;
    pcm_comm *comm = op && op->bound ? (pcm_comm *)((struct handle *)op->bound->comm)->address : NULL;
    if (comm && !op->handle && !op->done) {
        int code;
        Py_BEGIN_ALLOW_THREADS code = pcm_start(comm, &op->bound->call, &op->handle);
        Py_END_ALLOW_THREADS if (!code)
        {
            Py_XSETREF(op->keep, Py_NewRef(op->bound->keep));
            op->cancelled = 0;
            Py_RETURN_NONE;
        }
        if (code != PCM_NO_PLAN) return raise_status(code), NULL;
    }
    return PyObject_Vectorcall(((struct quick_method *)self)->function, args, flags, names);
}

static PyObject *get_status(PyObject *self, void *unused)
{
    (void)unused;
    return status_of(of(self));
}

static int set_status(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    Py_XSETREF(of(self)->status, Py_XNewRef(value));
    return 0;
}

static PyObject *get_slot(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(&of(self)->handle);
}

static PyObject *get_under_way(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(of(self)->handle != NULL);
}

static PyMethodDef operation_methods[] = {
    {"_poll", operation_poll, METH_O, "Give it some seconds; return whether it is done, and its end was seen to."},
    {"_drop", operation_drop, METH_NOARGS, "Forget what is under way, which goes on."},
    {"_become", operation_become, METH_O, "Take over what another one has under way, which is of nothing then."},
    {"_bind", operation_bind, METH_VARARGS,
     "Tell what Start starts: communicator, address of a pcm_call, what to keep."},
    {"_unbind", operation_unbind, METH_NOARGS, "Forget what Start starts."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef operation_members[] = {
    {"_keep", T_OBJECT, offsetof(struct operation, keep), 0, "what must live as long as the operation"},
    {"_after", T_OBJECT, offsetof(struct operation, after), 0, "called with the status at the end"},
    {"_value", T_OBJECT, offsetof(struct operation, value), 0, "what `_after` has returned"},
    {"_done", T_BOOL, offsetof(struct operation, done), 0, "done, and nobody has been told so yet"},
    {"_cancelled", T_BOOL, offsetof(struct operation, cancelled), 0, "whether it was taken back"},
    {"_compound", T_BOOL, offsetof(struct operation, compound), 0, "whether it is made of others"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef operation_attributes[] = {
    {"_status", get_status, set_status, "what is known of the message", NULL},
    {"_slot", get_slot, NULL, "where the core puts the operation's handle", NULL},
    {"_waits", get_under_way, NULL, "whether the core is not known to be done", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject operation_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pycomm._quick.Operation",
    .tp_basicsize = sizeof(struct operation),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "The part of a request that quick methods read.",
    .tp_new = operation_new,
    .tp_dealloc = operation_free,
    .tp_finalize = operation_finalize,
    .tp_traverse = operation_traverse,
    .tp_clear = operation_clear,
    .tp_methods = operation_methods,
    .tp_members = operation_members,
    .tp_getset = operation_attributes,
};

/* ---- the module's part --------------------------------------------------------------------------------------------- */

static PyObject *make_message_method(PyObject *module, PyObject *args)
{
    PyObject *function;
    int receives, starts;
    (void)module;
    if (!PyArg_ParseTuple(args, "Opp", &function, &receives, &starts)) return NULL;
    return quick_make(function, starts ? quick_start_message : quick_message, receives ? RECEIVE : SEND);
}

static PyObject *make_wait_method(PyObject *module, PyObject *function)
{
    (void)module;
    return quick_make(function, quick_wait, 0);
}

static PyObject *make_waitall_method(PyObject *module, PyObject *function)
{
    (void)module;
    return quick_make(function, quick_waitall, 0);
}

static PyObject *make_start_method(PyObject *module, PyObject *function)
{
    (void)module;
    return quick_make(function, quick_start, 0);
}

static PyObject *know_requests(PyObject *module, PyObject *args)
{
    PyObject *given[5], **known[] = {&request_type, &status_type, &dropped, &sweep, &fail};
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOOO", &given[0], &given[1], &given[2], &given[3], &given[4])) return NULL;
    for (int i = 0; i < 5; i++) Py_XSETREF(*known[i], Py_NewRef(given[i]));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"quick_message", make_message_method, METH_VARARGS, "Make the method that sends, receives, or starts to."},
    {"quick_wait", make_wait_method, METH_O, "Make the method that waits for an Operation."},
    {"quick_waitall", make_waitall_method, METH_O, "Make the method that waits for many."},
    {"quick_start", make_start_method, METH_O, "Make the method that starts what is bound."},
    {"know_requests", know_requests, METH_VARARGS,
     "Tell Request, Status, the dropped operations, what sweeps these, and what raises a status."},
    {NULL, NULL, 0, NULL},
};

int quick_add_requests(PyObject *module)
{
    name_tag = PyUnicode_InternFromString("tag"), name_become = PyUnicode_InternFromString("become");
    name_peer[SEND] = PyUnicode_InternFromString("dest"), name_peer[RECEIVE] = PyUnicode_InternFromString("source");
    name_append = PyUnicode_InternFromString("append");
    if (!name_tag || !name_become || !name_peer[SEND] || !name_peer[RECEIVE] || !name_append) return -1;
    if (PyType_Ready(&operation_type) || PyModule_AddFunctions(module, functions)) return -1;
    return PyModule_AddObjectRef(module, "Operation", (PyObject *)&operation_type);
}
