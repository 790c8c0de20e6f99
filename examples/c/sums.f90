! sums.f90: a program of MPI in Fortran with a communicator of pycomm: an allreduce and a broadcast, among all ranks and in halves.
!
!     mpicc -c schedules.c $(pycomm info --compile)
!     gfortran $(pycomm info --prefix)/include/pycomm.f90 sums.f90 schedules.o -lmpi $(pycomm info --compile) -o sums && mpiexec -n 4 ./sums
!
! MPI is called in C's way, which needs no Fortran module of MPI. With one (use mpi_f08), the handle of a communicator is
! pcm_mpi_from_fortran(comm%MPI_VAL).
program sums
  use pycomm
  implicit none

  interface
    integer(c_int) function mpi_init(argc, argv) bind(c, name='MPI_Init')
      import :: c_int, c_ptr
      type(c_ptr), value :: argc, argv
    end function
    integer(c_int) function mpi_finalize() bind(c, name='MPI_Finalize')
      import :: c_int
    end function
    integer(c_int) function ring_allreduce(rank, size, schedule) bind(c) ! of schedules.c
      import :: c_int, c_ptr
      integer(c_int), value :: rank, size
      type(c_ptr), intent(out) :: schedule
    end function
    integer(c_int) function binomial_broadcast(rank, size, root, schedule) bind(c)
      import :: c_int, c_ptr
      integer(c_int), value :: rank, size, root
      type(c_ptr), intent(out) :: schedule
    end function
  end interface

  integer, parameter :: n = 1000
  type(c_ptr) :: world, all, half
  integer(c_int32_t), allocatable :: members(:)
  integer :: r, odd

  if (mpi_init(c_null_ptr, c_null_ptr) /= 0) error stop 'MPI_Init failed'
  call check(pcm_mpi_world(pcm_mpi_comm_world(), c_null_ptr, world, all))
  call use_it(all, 'all')

  odd = mod(pcm_comm_rank(all), 2)
  allocate (members, source=[(r, r = odd, pcm_comm_size(all) - 1, 2)])
  call check(pcm_comm_create(world, 2_c_int64_t + odd, members, size(members), half))
  call use_it(half, merge('odd ', 'even', odd == 1))

  call pcm_comm_free(half)
  call pcm_comm_free(all)
  call pcm_world_destroy(world)
  if (mpi_finalize() /= 0) error stop 'MPI_Finalize failed'

contains

  subroutine check(status)
    integer(c_int), intent(in) :: status
    if (status /= pcm_ok) error stop pcm_error_text()
  end subroutine

  ! The sum of all ranks' numbers, and what the last rank has.
  subroutine use_it(comm, name)
    type(c_ptr), intent(in) :: comm
    character(*), intent(in) :: name
    real(c_double), target :: mine(n), total(n)
    type(pcm_call) :: call
    type(c_ptr) :: schedule
    integer :: i, rank, p

    rank = pcm_comm_rank(comm)
    p = pcm_comm_size(comm)
    mine = [(rank + i, i = 1, n)]

    call = pcm_call(collective=pcm_allreduce, dtype=pcm_float64, op=pcm_sum, in=c_loc(mine), out=c_loc(total), count=n)
    call check(ring_allreduce(rank, p, schedule))
    call run(comm, call, schedule)

    call = pcm_call(collective=pcm_broadcast, dtype=pcm_float64, root=p - 1, out=c_loc(mine), count=n)
    if (rank == p - 1) call%in = c_loc(mine)
    call check(binomial_broadcast(rank, p, p - 1, schedule))
    call run(comm, call, schedule)

    if (any(abs(total - [(p * (p - 1) / 2 + p * i, i = 1, n)]) > 0)) error stop 'the sum is wrong'
    if (any(abs(mine - [(p - 1 + i, i = 1, n)]) > 0)) error stop 'what was broadcast is wrong'
    if (rank == 0) print '(a, i0, a)', trim(name) // ': ', p, ' ranks, right'
  end subroutine

  ! Runs a call as a schedule says, which later calls of the kind follow too.
  subroutine run(comm, call, schedule)
    type(c_ptr), intent(in) :: comm, schedule
    type(pcm_call), intent(in) :: call
    call check(pcm_comm_plan(comm, call, schedule, 1_c_int32_t, 1_c_int32_t))
    call pcm_schedule_release(schedule)
    call check(pcm_run(comm, call, -1._c_double))
  end subroutine
end program
