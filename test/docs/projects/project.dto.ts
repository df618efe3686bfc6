import { ApiProperty, PartialType } from '@nestjs/swagger';
import { IsBoolean, IsOptional, IsString, Length } from 'class-validator';
import type { Project } from './project.entity.js';

export class ProjectCreate {
  @ApiProperty({ example: 'Analytical Engine', minLength: 1, maxLength: 100 })
  @IsString()
  @Length(1, 100)
  name: string;
}

export class ProjectUpdate extends PartialType(ProjectCreate) {
  @ApiProperty({ required: false })
  @IsOptional()
  @IsBoolean()
  archived?: boolean;
}

export class ProjectRead {
  @ApiProperty({ format: 'uuid' })
  id: string;

  @ApiProperty({ example: 'Analytical Engine' })
  name: string;

  @ApiProperty()
  archived: boolean;

  @ApiProperty({ description: 'The id of the user' })
  owner: string;

  @ApiProperty({ type: String, format: 'date-time' })
  createdAt: string;

  static of(project: Project): ProjectRead {
    return {
      id: project.id,
      name: project.name,
      archived: project.archived,
      owner: project.owner.id,
      createdAt: project.createdAt.toISOString(),
    };
  }
}
