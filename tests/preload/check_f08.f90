! check_f08.f90: collectives of Fortran's two interfaces, `use mpi_f08` and `use mpi`, that wait and that do not. Says "ok" on rank 0.
subroutine old(n)
  use mpi
  implicit none
  integer, intent(in) :: n
  integer :: rank, ranks, error, requests(3), which, statuses(MPI_STATUS_SIZE, 3), part, got, found(1)
  logical :: flag
  double precision, asynchronous :: x(n), y(n), z(n)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, error)
  x = rank + 1
  z = rank
  call MPI_Iallreduce(x, y, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, requests(1), error)
  call MPI_Ibcast(z, n, MPI_DOUBLE_PRECISION, ranks - 1, MPI_COMM_WORLD, requests(2), error)
  call MPI_Ibarrier(MPI_COMM_WORLD, requests(3), error)
  call MPI_Waitall(3, requests, statuses, error)
  if (any(y /= ranks * (ranks + 1) / 2) .or. any(z /= ranks - 1)) stop 1
  call MPI_Iallreduce(MPI_IN_PLACE, x, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, requests(1), error)
  call MPI_Waitany(1, requests, which, MPI_STATUS_IGNORE, error)
  if (any(x /= y) .or. which /= 1 .or. requests(1) /= MPI_REQUEST_NULL) stop 2
  call MPI_Comm_split(MPI_COMM_WORLD, 0, -rank, part, error)
  x = rank
  call MPI_Ibcast(x, n, MPI_DOUBLE_PRECISION, 0, part, requests(1), error)
  flag = .false.
  do while (.not. flag)
    call MPI_Test(requests(1), flag, MPI_STATUS_IGNORE, error)
  end do
  if (any(x /= ranks - 1)) stop 3
  call MPI_Ireduce(x, y, n, MPI_DOUBLE_PRECISION, MPI_MAX, 0, part, requests(1), error)
  call MPI_Waitsome(1, requests, got, found, MPI_STATUSES_IGNORE, error)
  call MPI_Comm_free(part, error)
  if (got /= 1 .or. part /= MPI_COMM_NULL) stop 4
end subroutine

program check
  use mpi_f08
  implicit none
  integer, parameter :: n = 1000
  integer :: rank, ranks, i
  type(MPI_Request) :: requests(2)
  type(MPI_Comm) :: part
  double precision, asynchronous :: x(n), y(n), all(n * 64)
  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks)
  x = rank + 1
  call MPI_Allreduce(x, y, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
  if (any(y /= ranks * (ranks + 1) / 2)) stop 11
  call MPI_Allreduce(MPI_IN_PLACE, x, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
  if (any(x /= y)) stop 12
  call MPI_Comm_dup(MPI_COMM_WORLD, part)
  x = rank
  call MPI_Iallgather(x, n, MPI_DOUBLE_PRECISION, all, n, MPI_DOUBLE_PRECISION, part, requests(1))
  call MPI_Iallreduce(x, y, n, MPI_DOUBLE_PRECISION, MPI_MAX, part, requests(2))
  call MPI_Waitall(2, requests, MPI_STATUSES_IGNORE)
  do i = 0, ranks - 1
    if (any(all(n * i + 1:n * i + n) /= i)) stop 13
  end do
  if (any(y /= ranks - 1) .or. requests(1) /= MPI_REQUEST_NULL) stop 14
  call MPI_Comm_free(part)
  call old(n)
  call MPI_Barrier(MPI_COMM_WORLD)
  if (rank == 0) print '(a)', 'ok'
  call MPI_Finalize()
end program check
