! pycomm.f90: what pycomm.h has for programs, with MPI or without, for Fortran 2003: compile it with the program. Names and meanings are those
! of pycomm.h, which explains them.
module pycomm
  use, intrinsic :: iso_c_binding
  implicit none
  public

  enum, bind(c) ! types
    enumerator :: pcm_bool, pcm_int8, pcm_uint8, pcm_int16, pcm_uint16, pcm_int32, pcm_uint32, pcm_int64, pcm_uint64
    enumerator :: pcm_float16, pcm_bfloat16, pcm_float32, pcm_float64, pcm_complex64, pcm_complex128
    enumerator :: pcm_float8_e4m3, pcm_float8_e5m2
  end enum
  enum, bind(c) ! reductions
    enumerator :: pcm_sum, pcm_prod, pcm_min, pcm_max, pcm_avg, pcm_land, pcm_lor, pcm_lxor, pcm_band, pcm_bor, pcm_bxor
  end enum
  enum, bind(c) ! collectives
    enumerator :: pcm_allreduce, pcm_reduce, pcm_broadcast, pcm_allgather, pcm_reduce_scatter, pcm_gather, pcm_scatter
    enumerator :: pcm_alltoall, pcm_scan, pcm_exscan, pcm_barrier
  end enum
  enum, bind(c) ! what functions return; more is an error
    enumerator :: pcm_ok, pcm_again, pcm_no_plan
  end enum

  type, bind(c) :: pcm_error
    integer(c_int) :: code, rank
    character(kind=c_char) :: text(504)
  end type

  type, bind(c) :: pcm_call
    integer(c_int8_t) :: collective = 0, dtype = 0, op = 0, variant = 0
    integer(c_int32_t) :: root = 0
    type(c_ptr) :: in = c_null_ptr, out = c_null_ptr
    integer(c_int64_t) :: count = 0
    type(c_ptr) :: in_counts = c_null_ptr, in_displs = c_null_ptr, out_counts = c_null_ptr, out_displs = c_null_ptr
    type(c_ptr) :: passed_counts = c_null_ptr
    real(c_double) :: timeout = 0
  end type

  interface
    function pcm_last_error() bind(c)
      import :: c_ptr
      type(c_ptr) :: pcm_last_error
    end function
    function pcm_mpi_comm_world() bind(c)
      import :: c_intptr_t
      integer(c_intptr_t) :: pcm_mpi_comm_world
    end function
    function pcm_mpi_from_fortran(comm) bind(c)
      import :: c_int, c_intptr_t
      integer(c_int), value :: comm
      integer(c_intptr_t) :: pcm_mpi_from_fortran
    end function
    integer(c_int) function pcm_mpi_world(comm, transports, world, all) bind(c)
      import :: c_int, c_intptr_t, c_ptr
      integer(c_intptr_t), value :: comm
      type(c_ptr), value :: transports ! of a string that ends with c_null_char, or c_null_ptr
      type(c_ptr), intent(out) :: world, all
    end function
    integer(c_int) function pcm_launched_world(world, all) bind(c)
      import :: c_int, c_ptr
      type(c_ptr), intent(out) :: world, all
    end function
    subroutine pcm_world_destroy(world) bind(c)
      import :: c_ptr
      type(c_ptr), value :: world
    end subroutine
    integer(c_int) function pcm_comm_create(world, id, ranks, size, comm) bind(c)
      import :: c_int, c_int32_t, c_int64_t, c_ptr
      type(c_ptr), value :: world
      integer(c_int64_t), value :: id
      integer(c_int32_t), intent(in) :: ranks(*)
      integer(c_int), value :: size
      type(c_ptr), intent(out) :: comm
    end function
    subroutine pcm_comm_free(comm) bind(c)
      import :: c_ptr
      type(c_ptr), value :: comm
    end subroutine
    integer(c_int) function pcm_comm_rank(comm) bind(c)
      import :: c_int, c_ptr
      type(c_ptr), value :: comm
    end function
    integer(c_int) function pcm_comm_size(comm) bind(c)
      import :: c_int, c_ptr
      type(c_ptr), value :: comm
    end function
    integer(c_int) function pcm_comm_plan(comm, call, schedule, slices, window) bind(c)
      import :: c_int, c_int32_t, c_ptr, pcm_call
      type(c_ptr), value :: comm, schedule
      type(pcm_call), intent(in) :: call
      integer(c_int32_t), value :: slices, window
    end function
    subroutine pcm_schedule_release(schedule) bind(c)
      import :: c_ptr
      type(c_ptr), value :: schedule
    end subroutine
    integer(c_int) function pcm_run(comm, call, patience) bind(c)
      import :: c_double, c_int, c_ptr, pcm_call
      type(c_ptr), value :: comm
      type(pcm_call), intent(in) :: call
      real(c_double), value :: patience
    end function
    integer(c_int) function pcm_start(comm, call, request) bind(c)
      import :: c_int, c_ptr, pcm_call
      type(c_ptr), value :: comm
      type(pcm_call), intent(in) :: call
      type(c_ptr), intent(out) :: request
    end function
    integer(c_int) function pcm_wait(request, seconds, status) bind(c)
      import :: c_double, c_int, c_ptr
      type(c_ptr), value :: request, status
      real(c_double), value :: seconds
    end function
  end interface

contains

  ! What the last error of this thread was, in words.
  function pcm_error_text() result(text)
    character(:), allocatable :: text
    type(pcm_error), pointer :: error
    integer :: i
    call c_f_pointer(pcm_last_error(), error)
    text = ''
    do i = 1, size(error%text)
      if (error%text(i) == c_null_char) exit
      text = text // error%text(i)
    end do
  end function
end module
