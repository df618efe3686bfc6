import { ApiParam } from '@nestjs/swagger';

export const EXAMPLE_USER_ID = 'k3PzVtq0YtN1zXcX1bq9vG5mHq2n8sLd';
export const EXAMPLE_SESSION_ID = 'Kq1cW9nNn3cJr0mH7yqD2vXo8sTfLbAe';

/** Documents the path parameter `id` of a route below `/users/{id}`. */
export function ApiUserId() {
  return ApiParam({
    name: 'id',
    description: 'The id of a user, as Better-Auth created it',
    schema: { type: 'string', maxLength: 255, example: EXAMPLE_USER_ID },
  });
}
